/* The buddy allocator (mm/page_alloc.c, 2.6.39): free lists, per-CPU lists, the fast path and the slow path. */
#include <linux/compaction.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/vmstat.h>
#include "internal.h"

static const enum migratetype fallbacks[MIGRATE_PCPTYPES][MIGRATE_PCPTYPES - 1] = {
	[MIGRATE_UNMOVABLE]   = { MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE },
	[MIGRATE_RECLAIMABLE] = { MIGRATE_UNMOVABLE,   MIGRATE_MOVABLE },
	[MIGRATE_MOVABLE]     = { MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE },
};

void set_pageblock_migratetype(struct page *page, enum migratetype type)
{
	struct zone *zone = page_zone(page);

	zone->pageblock_type[pageblock_index(zone, page_to_pfn(page))] = type;
}

static void set_page_order(struct page *page, unsigned order)
{
	set_page_private(page, order);
	atomic_set(&page->_mapcount, PAGE_BUDDY_MAPCOUNT_VALUE);
}

static void rmv_page_order(struct page *page)
{
	atomic_set(&page->_mapcount, -1);
	set_page_private(page, 0);
}

/* -- compound pages -- */

static void free_compound_page(struct page *page)
{
	__free_pages_ok(page, compound_order(page));
}

/* A tail says so before it says whose, up to 668f9abbd433: the window of a pfn scanner's dangling first_page. */
static void prep_compound_page(struct page *page, unsigned order)
{
	unsigned long nr_pages = 1UL << order;

	set_compound_page_dtor(page, free_compound_page);
	set_compound_order(page, order);
	__SetPageHead(page);
	for (unsigned long i = 1; i < nr_pages; i++) {
		struct page *p = page + i;

#ifdef CONFIG_FIX_668f9abbd433
		p->first_page = page;
		smp_wmb();
		__SetPageTail(p);
#else
		__SetPageTail(p);
		p->first_page = page;
#endif
	}
}

/* -- freeing -- */

static bool page_is_buddy(struct page *page, struct page *buddy, unsigned order)
{
	if (!pfn_valid(page_to_pfn(buddy)) || page_zone(page) != page_zone(buddy))
		return false;
	return PageBuddy(buddy) && page_order(buddy) == order;
}

static void __free_one_page(struct page *page, struct zone *zone, unsigned order, int migratetype)
{
	unsigned long pfn = page_to_pfn(page);

	VM_BUG_ON(pfn & ((1UL << order) - 1));
	while (order < MAX_ORDER - 1) {
		struct page *buddy = pfn_to_page(pfn ^ (1UL << order));

		if (!page_is_buddy(page, buddy, order))
			break;
		list_del(&buddy->lru);
		zone->free_area[order].nr_free--;
		rmv_page_order(buddy);
		pfn &= ~(1UL << order);
		page = pfn_to_page(pfn);
		order++;
	}
	set_page_order(page, order);

	/* If the next merge only waits for our buddy's half, go to the tail: likely to grow rather than be handed out. */
	if (order < MAX_ORDER - 2) {
		unsigned long higher_pfn = pfn & ~(1UL << order);
		struct page *higher_buddy = pfn_to_page(higher_pfn ^ (1UL << (order + 1)));

		if (page_is_buddy(pfn_to_page(higher_pfn), higher_buddy, order + 1)) {
			list_add_tail(&page->lru, &zone->free_area[order].free_list[migratetype]);
			zone->free_area[order].nr_free++;
			return;
		}
	}
	list_add(&page->lru, &zone->free_area[order].free_list[migratetype]);
	zone->free_area[order].nr_free++;
}

/* One sub-page on its way out: nothing may still use it; then ALL flags go by one unlocked AND. */
static void free_pages_check(struct page *page)
{
	BUG_ON(page_mapcount(page) || page->mapping || atomic_read(&page->_count) ||
	       (page->flags & PAGE_FLAGS_CHECK_AT_FREE));
	if (page->flags & PAGE_FLAGS_CHECK_AT_PREP)
		page->flags &= ~PAGE_FLAGS_CHECK_AT_PREP;
}

static void free_pages_prepare(struct page *page, unsigned order)
{
	trace_page_free(page, order);
	if (PageAnon(page))
		page->mapping = NULL;
	for (unsigned long i = 0; i < 1UL << order; i++)
		free_pages_check(page + i);
}

static void free_one_page(struct zone *zone, struct page *page, unsigned order, int migratetype)
{
	spin_lock(&zone->lock);
	zone->pages_scanned = 0;
	__free_one_page(page, zone, order, migratetype);
	ghost(page, NR_FREE_PAGES, 1 << order);
	__mod_zone_page_state(zone, NR_FREE_PAGES, 1 << order);
	spin_unlock(&zone->lock);
}

void __free_pages_ok(struct page *page, unsigned order)
{
	unsigned long flags;

	free_pages_prepare(page, order);
	local_irq_save(flags);
	free_one_page(page_zone(page), page, order, get_pageblock_migratetype(page));
	local_irq_restore(flags);
}

/* Take `count` pages from the per-CPU lists, round robin over the types, back to the buddies. */
static void free_pcppages_bulk(struct zone *zone, int count, struct per_cpu_pages *pcp)
{
	int migratetype = 0, batch_free = 0, to_free = count;

	spin_lock(&zone->lock);
	zone->pages_scanned = 0;
	while (to_free) {
		struct list_head *list;

		/* Empty lists raise how much is taken from the next full one. */
		do {
			batch_free++;
			if (++migratetype == MIGRATE_PCPTYPES)
				migratetype = 0;
			list = &pcp->lists[migratetype];
		} while (list_empty(list));
		do {
			struct page *page = list_entry(list->prev, struct page, lru);

			list_del(&page->lru);
			__free_one_page(page, zone, 0, page_private(page));
			ghost(page, NR_FREE_PAGES, 1);
		} while (--to_free && --batch_free && !list_empty(list));
	}
	__mod_zone_page_state(zone, NR_FREE_PAGES, count);
	spin_unlock(&zone->lock);
}

void free_hot_cold_page(struct page *page, int cold)
{
	struct zone *zone = page_zone(page);
	unsigned long flags;

	free_pages_prepare(page, 0);
	int migratetype = get_pageblock_migratetype(page);
	set_page_private(page, migratetype);
	local_irq_save(flags);
	struct per_cpu_pages *pcp = &this_cpu_ptr(zone->pageset)->pcp;
	if (cold)
		list_add_tail(&page->lru, &pcp->lists[migratetype]);
	else
		list_add(&page->lru, &pcp->lists[migratetype]);
	pcp->count++;
	if (pcp->count >= pcp->high) {
		int count = min(pcp->batch, pcp->count);

		free_pcppages_bulk(zone, count, pcp);
		pcp->count -= count;
	}
	local_irq_restore(flags);
}

void __free_pages(struct page *page, unsigned order)
{
	if (!put_page_testzero(page))
		return;
	if (order == 0)
		free_hot_cold_page(page, 0);
	else
		__free_pages_ok(page, order);
}

void free_pages(unsigned long address, unsigned order)
{
	__free_pages(virt_to_page(address), order);
}

/* Everything on `cpu`'s lists goes back: either this CPU or one that is not running. */
void drain_pages(unsigned cpu)
{
	struct zone *zone;
	unsigned long flags;

	for_each_zone(zone) {
		local_irq_save(flags);
		struct per_cpu_pages *pcp = &per_cpu_ptr(zone->pageset, cpu)->pcp;
		if (pcp->count) {
			free_pcppages_bulk(zone, pcp->count, pcp);
			pcp->count = 0;
		}
		local_irq_restore(flags);
	}
}

/* -- taking -- */

/* Give the upper halves of a block of order `high` back until `page` is a block of order `low`. */
static void expand(struct zone *zone, struct page *page, int low, int high, int migratetype)
{
	unsigned long size = 1UL << high;

	while (high > low) {
		high--;
		size >>= 1;
		list_add(&page[size].lru, &zone->free_area[high].free_list[migratetype]);
		zone->free_area[high].nr_free++;
		set_page_order(&page[size], high);
	}
}

static struct page *take_free_block(struct zone *zone, unsigned order, unsigned want, int list_type, int rest_type)
{
	struct free_area *area = &zone->free_area[order];
	struct page *page = list_first_entry(&area->free_list[list_type], struct page, lru);

	list_del(&page->lru);
	rmv_page_order(page);
	area->nr_free--;
	expand(zone, page, want, order, rest_type);
	return page;
}

static struct page *__rmqueue_smallest(struct zone *zone, unsigned order, int migratetype)
{
	for (unsigned current_order = order; current_order < MAX_ORDER; current_order++) {
		if (!list_empty(&zone->free_area[current_order].free_list[migratetype]))
			return take_free_block(zone, current_order, order, migratetype, migratetype);
	}
	return NULL;
}

/* Move a pageblock's free pages to another type's lists; returns how many pages that were. */
static unsigned long move_freepages_block(struct zone *zone, struct page *page, int migratetype)
{
	unsigned long pfn = page_to_pfn(page) & ~(pageblock_nr_pages - 1);
	unsigned long end_pfn = pfn + pageblock_nr_pages, moved = 0;

	while (pfn < end_pfn) {
		page = pfn_to_page(pfn);
		if (!PageBuddy(page)) {
			pfn++;
			continue;
		}
		unsigned order = page_order(page);
		list_move(&page->lru, &zone->free_area[order].free_list[migratetype]);
		pfn += 1UL << order;
		moved += 1UL << order;
	}
	return moved;
}

/* Steal from another type, the largest block first; a large one takes its pageblock over. */
static struct page *__rmqueue_fallback(struct zone *zone, unsigned order, int start_type)
{
	for (int current_order = MAX_ORDER - 1; current_order >= (int)order; current_order--) {
		for (int i = 0; i < MIGRATE_PCPTYPES - 1; i++) {
			int migratetype = fallbacks[start_type][i];
			struct list_head *list = &zone->free_area[current_order].free_list[migratetype];

			if (list_empty(list))
				continue;
			struct page *page = list_first_entry(list, struct page, lru);
			if (current_order >= pageblock_order / 2 || start_type == MIGRATE_RECLAIMABLE) {
				unsigned long pages = move_freepages_block(zone, page, start_type);

				if (pages >= pageblock_nr_pages / 2)
					set_pageblock_migratetype(page, start_type);
				migratetype = start_type;
			}
			if (list_empty(&zone->free_area[current_order].free_list[migratetype]))
				continue;
			return take_free_block(zone, current_order, order, migratetype, migratetype);
		}
	}
	return NULL;
}

static struct page *__rmqueue(struct zone *zone, unsigned order, int migratetype)
{
	struct page *page = __rmqueue_smallest(zone, order, migratetype);

	return page ? page : __rmqueue_fallback(zone, order, migratetype);
}

static int rmqueue_bulk(struct zone *zone, int count, struct list_head *list, int migratetype)
{
	int i;

	spin_lock(&zone->lock);
	for (i = 0; i < count; i++) {
		struct page *page = __rmqueue(zone, 0, migratetype);

		if (!page)
			break;
		ghost(page, NR_FREE_PAGES, -1);
		list_add(&page->lru, list);
		set_page_private(page, migratetype);
		list = &page->lru;
	}
	__mod_zone_page_state(zone, NR_FREE_PAGES, -i);
	spin_unlock(&zone->lock);
	return i;
}

static void prep_new_page(struct page *page, unsigned order, gfp_t gfp_flags)
{
	for (unsigned long i = 0; i < 1UL << order; i++) {
		struct page *p = page + i;

		BUG_ON(page_mapcount(p) || p->mapping || atomic_read(&p->_count) ||
		       (p->flags & PAGE_FLAGS_CHECK_AT_PREP));
	}
	trace_page_alloc(page, order);
	set_page_private(page, 0);
	init_page_count(page);
	if (gfp_flags & __GFP_ZERO) {
		for (unsigned long i = 0; i < 1UL << order; i++)
			clear_highpage(page + i);
	}
	if (order && (gfp_flags & __GFP_COMP))
		prep_compound_page(page, order);
}

static struct page *buffered_rmqueue(struct zone *zone, unsigned order, gfp_t gfp_flags, int migratetype)
{
	unsigned long flags;
	struct page *page;

	if (likely(order == 0)) {
		local_irq_save(flags);
		struct per_cpu_pages *pcp = &this_cpu_ptr(zone->pageset)->pcp;
		struct list_head *list = &pcp->lists[migratetype];
		if (list_empty(list)) {
			pcp->count += rmqueue_bulk(zone, pcp->batch, list, migratetype);
			if (unlikely(list_empty(list)))
				goto failed;
		}
		page = list_first_entry(list, struct page, lru);
		list_del(&page->lru);
		pcp->count--;
	} else {
		spin_lock_irqsave(&zone->lock, flags);
		page = __rmqueue(zone, order, migratetype);
		/* Interrupts stay off until the counter is right, the lock does not. */
		__raw_unlock(&zone->lock);
		preempt_enable_no_resched();
		if (!page)
			goto failed;
		ghost(page, NR_FREE_PAGES, -(1 << order));
		__mod_zone_page_state(zone, NR_FREE_PAGES, -(1 << order));
	}
	local_irq_restore(flags);
	prep_new_page(page, order, gfp_flags);
	return page;
failed:
	local_irq_restore(flags);
	return NULL;
}

/* Free pages above the mark, and enough of them in blocks of the order asked for. */
bool zone_watermark_ok(struct zone *zone, unsigned order, unsigned long mark, int classzone, int alloc_flags)
{
	long min = mark;
	/* (1 << order) + 1, not - 1: so it stood from 2.6.37 on. */
	long free_pages = zone_page_state(zone, NR_FREE_PAGES) - ((1 << order) + 1);

	if (alloc_flags & ALLOC_HIGH)
		min -= min / 2;
	if (alloc_flags & ALLOC_HARDER)
		min -= min / 4;
	if (free_pages <= min + (long)zone->lowmem_reserve[classzone])
		return false;
	for (unsigned o = 0; o < order; o++) {
		free_pages -= zone->free_area[o].nr_free << o;
		min >>= 1;
		if (free_pages <= min)
			return false;
	}
	return true;
}

struct page *get_page_from_freelist(gfp_t gfp_mask, unsigned order, struct zonelist *zonelist, int alloc_flags,
				    struct zone *preferred_zone, int migratetype)
{
	struct zone *zone, **at;

	for_each_zone_zonelist(zone, at, zonelist) {
		if (!(alloc_flags & ALLOC_NO_WATERMARKS)) {
			unsigned long mark = zone->watermark[alloc_flags & ALLOC_WMARK_MASK];

			if (!zone_watermark_ok(zone, order, mark, zone_idx(preferred_zone), alloc_flags))
				continue;
		}
		struct page *page = buffered_rmqueue(zone, order, gfp_mask, migratetype);
		if (page)
			return page;
	}
	return NULL;
}

/* -- the slow path -- */

static struct page *__alloc_pages_direct_compact(gfp_t gfp_mask, unsigned order, struct zonelist *zonelist,
						 int alloc_flags, struct zone *preferred_zone, int migratetype,
						 unsigned long *did_some_progress, bool sync_migration)
{
	if (!order || compaction_deferred(preferred_zone))
		return NULL;

	current->flags |= PF_MEMALLOC;
	*did_some_progress = try_to_compact_pages(zonelist, order, gfp_mask, sync_migration);
	current->flags &= ~PF_MEMALLOC;
	if (*did_some_progress == COMPACT_SKIPPED)
		return NULL;

	/* What migration freed lies on this CPU's lists and must merge first. */
	drain_pages(get_cpu());
	put_cpu();
	struct page *page = get_page_from_freelist(gfp_mask, order, zonelist, alloc_flags, preferred_zone, migratetype);
	if (page) {
		preferred_zone->compact_considered = 0;
		preferred_zone->compact_defer_shift = 0;
		return page;
	}
	defer_compaction(preferred_zone);
	cond_resched();
	return NULL;
}

static struct page *__alloc_pages_direct_reclaim(gfp_t gfp_mask, unsigned order, struct zonelist *zonelist,
						 int alloc_flags, struct zone *preferred_zone, int migratetype,
						 unsigned long *did_some_progress)
{
	struct page *page = NULL;
	bool drained = false;

	cond_resched();
	current->flags |= PF_MEMALLOC;
	*did_some_progress = try_to_free_pages(zonelist, order, gfp_mask);
	current->flags &= ~PF_MEMALLOC;
	cond_resched();
	if (!*did_some_progress)
		return NULL;
	for (;;) {
		page = get_page_from_freelist(gfp_mask, order, zonelist, alloc_flags, preferred_zone, migratetype);
		if (page || drained)
			return page;
		drain_pages(get_cpu());
		put_cpu();
		drained = true;
	}
}

static int gfp_to_alloc_flags(gfp_t gfp_mask)
{
	int alloc_flags = ALLOC_WMARK_MIN;

	if (gfp_mask & __GFP_HIGH)
		alloc_flags |= ALLOC_HIGH;
	if (!(gfp_mask & __GFP_WAIT))
		alloc_flags |= ALLOC_HARDER;
	if (!(gfp_mask & __GFP_NOMEMALLOC) && !in_interrupt() && (current->flags & PF_MEMALLOC))
		alloc_flags |= ALLOC_NO_WATERMARKS;
	return alloc_flags;
}

static struct page *__alloc_pages_slowpath(gfp_t gfp_mask, unsigned order, struct zonelist *zonelist,
					   struct zone *preferred_zone, int migratetype)
{
	unsigned long did_some_progress, pages_reclaimed = 0;
	bool sync_migration = false;
	int alloc_flags = gfp_to_alloc_flags(gfp_mask);

	for (;;) {
		struct page *page = get_page_from_freelist(gfp_mask, order, zonelist, alloc_flags, preferred_zone,
							   migratetype);
		if (page)
			return page;
		if (!(gfp_mask & __GFP_WAIT) || (current->flags & PF_MEMALLOC))
			return NULL;

		/* The first compaction is asynchronous, later ones only for callers without kswapd's help. */
		page = __alloc_pages_direct_compact(gfp_mask, order, zonelist, alloc_flags, preferred_zone, migratetype,
						    &did_some_progress, sync_migration);
		if (page)
			return page;
		sync_migration = !(gfp_mask & __GFP_NO_KSWAPD);

		page = __alloc_pages_direct_reclaim(gfp_mask, order, zonelist, alloc_flags, preferred_zone, migratetype,
						    &did_some_progress);
		if (page)
			return page;

		/* should_alloc_retry(); where Linux would call the OOM killer, the guest gives up. */
		pages_reclaimed += did_some_progress;
		if (!(gfp_mask & __GFP_NORETRY) && did_some_progress &&
		    (order <= PAGE_ALLOC_COSTLY_ORDER || pages_reclaimed < 1UL << order)) {
			congestion_wait(HZ / 50);
			continue;
		}
		return __alloc_pages_direct_compact(gfp_mask, order, zonelist, alloc_flags, preferred_zone, migratetype,
						    &did_some_progress, sync_migration);
	}
}

struct page *alloc_pages(gfp_t gfp_mask, unsigned order)
{
	enum zone_type highest = gfp_zone(gfp_mask);
	struct zonelist *zonelist = &contig_page_data.node_zonelists[highest];
	struct zone *preferred_zone = zonelist->zones[0];
	int migratetype = allocflags_to_migratetype(gfp_mask);

	if (!preferred_zone)
		return NULL;
	struct page *page = get_page_from_freelist(gfp_mask, order, zonelist, ALLOC_WMARK_LOW, preferred_zone,
						   migratetype);
	if (unlikely(!page))
		page = __alloc_pages_slowpath(gfp_mask, order, zonelist, preferred_zone, migratetype);
	return page;
}

unsigned long __get_free_pages(gfp_t gfp_mask, unsigned order)
{
	struct page *page = alloc_pages(gfp_mask, order);

	return page ? (unsigned long)page_address(page) : 0;
}

unsigned long get_zeroed_page(gfp_t gfp_mask)
{
	return __get_free_pages(gfp_mask | __GFP_ZERO, 0);
}

/* A free buddy block becomes 1 << order single pages in use; 0 if the zone cannot spare it. */
int split_free_page(struct page *page)
{
	struct zone *zone = page_zone(page);
	unsigned order = page_order(page);

	if (!zone_watermark_ok(zone, 0, low_wmark_pages(zone) + (1UL << order), 0, 0))
		return 0;
	list_del(&page->lru);
	zone->free_area[order].nr_free--;
	rmv_page_order(page);
	ghost(page, NR_FREE_PAGES, -(1 << order));
	__mod_zone_page_state(zone, NR_FREE_PAGES, -(1 << order));
	trace_page_alloc(page, order);
	for (unsigned long i = 0; i < 1UL << order; i++)
		init_page_count(page + i);
	if (order >= pageblock_order - 1) {
		struct page *endpage = page + (1UL << order) - 1;

		for (; page < endpage; page += pageblock_nr_pages)
			set_pageblock_migratetype(page, MIGRATE_MOVABLE);
	}
	return 1 << order;
}
