/*
 * Memory compaction (mm/compaction.c, 2.6.39): a migration scanner goes up the zone and a free scanner comes down, until
 * they meet. 748446bb6b5a (2.6.35) introduced what 7454f4ba40b4 (3.0) fixed: see isolate_freepages().
 */
#ifdef CONFIG_SEED_CLAMP
#define VMSTAT_CLAMP
#endif
#include <linux/compaction.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/swap.h>
#include "internal.h"

#define EXTFRAG_THRESHOLD 500

struct compact_control {
	struct list_head freepages;	/* targets */
	struct list_head migratepages;	/* isolated, to be moved */
	unsigned long nr_freepages;
	unsigned long nr_migratepages;
	unsigned long free_pfn;		/* where the free scanner stands */
	unsigned long migrate_pfn;	/* where the migration scanner stands */
	bool sync;
	unsigned order;
	int migratetype;
	struct zone *zone;
};

static unsigned long release_freepages(struct list_head *freelist)
{
	struct page *page, *next;
	unsigned long count = 0;

	list_for_each_entry_safe(page, next, freelist, lru) {
		list_del(&page->lru);
		__free_page(page);
		count++;
	}
	return count;
}

/* -- the free scanner -- */

/* Take every free page of one pageblock. Caller holds zone->lock. */
static unsigned long isolate_freepages_block(struct zone *zone, unsigned long blockpfn, struct list_head *freelist)
{
	unsigned long end_pfn = min(blockpfn + pageblock_nr_pages, zone->zone_start_pfn + zone->spanned_pages);
	unsigned long total_isolated = 0;

	for (; blockpfn < end_pfn; blockpfn++) {
		struct page *page = pfn_to_page(blockpfn);

		if (!PageBuddy(page))
			continue;
		int isolated = split_free_page(page);
		total_isolated += isolated;
		for (int i = 0; i < isolated; i++)
			list_add(&page[i].lru, freelist);
		if (isolated)
			blockpfn += isolated - 1;
	}
	return total_isolated;
}

static bool suitable_migration_target(struct page *page)
{
	/* A whole free block is as good as a movable one. */
	if (PageBuddy(page) && page_order(page) >= pageblock_order)
		return true;
	return get_pageblock_migratetype(page) == MIGRATE_MOVABLE;
}

static void isolate_freepages(struct zone *zone, struct compact_control *cc)
{
	struct list_head *freelist = &cc->freepages;
	unsigned long flags;
	unsigned long nr_freepages = cc->nr_freepages;
	unsigned long pfn = cc->free_pfn;
	unsigned long low_pfn = cc->migrate_pfn + pageblock_nr_pages;
	/*
	 * Where the next search starts: the highest block in which something was found, as freeing may have happened there
	 * meanwhile.
	 */
#ifdef CONFIG_FIX_7454f4ba40b4
	unsigned long high_pfn = min(low_pfn, pfn);
#else
	unsigned long high_pfn = low_pfn;
#endif

	for (; pfn > low_pfn && cc->nr_migratepages > nr_freepages; pfn -= pageblock_nr_pages) {
		if (!pfn_valid(pfn))
			continue;
		struct page *page = pfn_to_page(pfn);
		/* Zones may overlap: this scanner asks whose page it is. */
		if (page_zone(page) != zone)
			continue;
		if (!suitable_migration_target(page))
			continue;

		/* Recheck under the lock: pages may have been allocated meanwhile. */
		unsigned long isolated = 0;
		spin_lock_irqsave(&zone->lock, flags);
		if (suitable_migration_target(page)) {
			isolated = isolate_freepages_block(zone, pfn, freelist);
			nr_freepages += isolated;
		}
		spin_unlock_irqrestore(&zone->lock, flags);
		if (isolated)
			high_pfn = max(high_pfn, pfn);
	}

	cc->free_pfn = high_pfn;
	cc->nr_freepages = nr_freepages;
}

/* -- the migration scanner -- */

/* Classify what is on the private list and count it as isolated: in the zone that is being compacted. */
static void acct_isolated(struct zone *zone, struct compact_control *cc)
{
	struct page *page;
	unsigned count[NR_LRU_LISTS] = { 0 };

	list_for_each_entry(page, &cc->migratepages, lru) {
		int lru = page_lru_base_type(page);

		ghost(page, NR_ISOLATED_ANON + is_file_lru(lru), 1);
		count[lru]++;
	}
	__mod_zone_page_state(zone, NR_ISOLATED_ANON, count[LRU_INACTIVE_ANON] + count[LRU_ACTIVE_ANON]);
	__mod_zone_page_state(zone, NR_ISOLATED_FILE, count[LRU_INACTIVE_FILE] + count[LRU_ACTIVE_FILE]);
}

/* Both classes at once; the sum wraps like its terms. */
static bool too_many_isolated(struct zone *zone)
{
	unsigned long inactive = zone_page_state(zone, NR_INACTIVE_FILE) + zone_page_state(zone, NR_INACTIVE_ANON);
	unsigned long active = zone_page_state(zone, NR_ACTIVE_FILE) + zone_page_state(zone, NR_ACTIVE_ANON);
	unsigned long isolated = zone_page_state(zone, NR_ISOLATED_FILE) + zone_page_state(zone, NR_ISOLATED_ANON);

	return isolated > (inactive + active) / 2;
}

/* Let interrupts and others at the lock now and then. Returns whether a fatal signal came in. */
static bool migrate_scanner_breathe(struct zone *zone, unsigned long low_pfn)
{
	bool locked = true;

	if (!((low_pfn + 1) % SWAP_CLUSTER_MAX)) {
		spin_unlock_irq(&zone->lru_lock);
		locked = false;
	}
	if (need_resched() || spin_is_contended(&zone->lru_lock)) {
		if (locked)
			spin_unlock_irq(&zone->lru_lock);
		cond_resched();
		spin_lock_irq(&zone->lru_lock);
		return fatal_signal_pending(current);
	}
	if (!locked)
		spin_lock_irq(&zone->lru_lock);
	return false;
}

/* Isolate up to a cluster from the next pageblock. Nothing here compares a page's zone with `zone`. */
static unsigned long isolate_migratepages(struct zone *zone, struct compact_control *cc)
{
	unsigned long low_pfn = max(cc->migrate_pfn, zone->zone_start_pfn);
	unsigned long end_pfn = ALIGN(low_pfn + pageblock_nr_pages, pageblock_nr_pages);
	unsigned long last_pageblock_nr = 0;
	struct list_head *migratelist = &cc->migratepages;

	/* Do not cross the free scanner. */
	if (end_pfn > cc->free_pfn || !pfn_valid(low_pfn)) {
		cc->migrate_pfn = end_pfn;
		return 0;
	}

	while (unlikely(too_many_isolated(zone))) {
		trace_stall(zone, NR_ISOLATED_FILE);
		congestion_wait(HZ / 10);
		if (fatal_signal_pending(current))
			return 0;
	}

	cond_resched();
	spin_lock_irq(&zone->lru_lock);
	for (; low_pfn < end_pfn; low_pfn++) {
		if (migrate_scanner_breathe(zone, low_pfn))
			break;
		if (!pfn_valid(low_pfn))
			continue;
		struct page *page = pfn_to_page(low_pfn);
		if (PageBuddy(page))
			continue;

		/* An asynchronous run takes movable blocks only. */
		unsigned long pageblock_nr = low_pfn >> pageblock_order;
		if (!cc->sync && last_pageblock_nr != pageblock_nr &&
		    get_pageblock_migratetype(page) != MIGRATE_MOVABLE) {
			low_pfn = ALIGN(low_pfn + pageblock_nr_pages, pageblock_nr_pages) - 1;
			last_pageblock_nr = pageblock_nr;
			continue;
		}

		if (!PageLRU(page))
			continue;
		if (PageTransHuge(page)) {
			low_pfn += (1UL << compound_order(page)) - 1;
			continue;
		}
		if (__isolate_lru_page(page, ISOLATE_BOTH, 0) != 0)
			continue;
		VM_BUG_ON(PageTransCompound(page));

		trace_page_isolate(page, zone);
		del_page_from_lru_list(zone, page, page_lru(page));
		list_add(&page->lru, migratelist);
		cc->nr_migratepages++;
		if (cc->nr_migratepages == COMPACT_CLUSTER_MAX)
			break;
	}
	acct_isolated(zone, cc);
	spin_unlock_irq(&zone->lru_lock);
	cc->migrate_pfn = low_pfn;
	return cc->nr_migratepages;
}

/* -- migration -- */

/* migrate_pages() asks for a target. */
static struct page *compaction_alloc(struct page *migratepage, unsigned long data)
{
	struct compact_control *cc = (struct compact_control *)data;

	(void)migratepage;
	if (list_empty(&cc->freepages)) {
		isolate_freepages(cc->zone, cc);
		if (list_empty(&cc->freepages))
			return NULL;
	}
	struct page *freepage = list_first_entry(&cc->freepages, struct page, lru);
	list_del(&freepage->lru);
	cc->nr_freepages--;
	return freepage;
}

static void update_nr_listpages(struct compact_control *cc)
{
	struct page *page;

	cc->nr_migratepages = 0;
	cc->nr_freepages = 0;
	list_for_each_entry(page, &cc->migratepages, lru)
		cc->nr_migratepages++;
	list_for_each_entry(page, &cc->freepages, lru)
		cc->nr_freepages++;
}

static int compact_finished(struct zone *zone, struct compact_control *cc)
{
	unsigned long watermark = low_wmark_pages(zone) + (1UL << cc->order);

	if (fatal_signal_pending(current))
		return COMPACT_PARTIAL;
	if (cc->free_pfn <= cc->migrate_pfn)
		return COMPACT_COMPLETE;
	if (!zone_watermark_ok(zone, cc->order, watermark, 0, 0))
		return COMPACT_CONTINUE;

	/* Is there a block to be had, of our type or by taking a whole pageblock over? */
	for (unsigned order = cc->order; order < MAX_ORDER; order++) {
		if (!list_empty(&zone->free_area[order].free_list[cc->migratetype]))
			return COMPACT_PARTIAL;
		if (order >= pageblock_order && zone->free_area[order].nr_free)
			return COMPACT_PARTIAL;
	}
	return COMPACT_CONTINUE;
}

/* Is there enough free memory to move pages into, and is fragmentation what is wrong? */
unsigned long compaction_suitable(struct zone *zone, int order)
{
	unsigned long watermark = low_wmark_pages(zone) + (2UL << order);

	if (!zone_watermark_ok(zone, 0, watermark, 0, 0))
		return COMPACT_SKIPPED;
	int fragindex = fragmentation_index(zone, order);
	if (fragindex >= 0 && fragindex <= EXTFRAG_THRESHOLD)
		return COMPACT_SKIPPED;
	/* 2.6.39 compares with -1, which the index never is: so until June 2011. */
	if (fragindex == -1 && zone_watermark_ok(zone, order, watermark, 0, 0))
		return COMPACT_PARTIAL;
	return COMPACT_CONTINUE;
}

static int compact_zone(struct zone *zone, struct compact_control *cc)
{
	int ret = compaction_suitable(zone, cc->order);

	if (ret == COMPACT_PARTIAL || ret == COMPACT_SKIPPED)
		return ret;

	trace_compact_begin(zone, cc->order);
	cc->migrate_pfn = zone->zone_start_pfn;
	cc->free_pfn = (cc->migrate_pfn + zone->spanned_pages) & ~(pageblock_nr_pages - 1);
	migrate_prep_local();

	while ((ret = compact_finished(zone, cc)) == COMPACT_CONTINUE) {
		if (!isolate_migratepages(zone, cc))
			continue;
		int err = migrate_pages(&cc->migratepages, compaction_alloc, (unsigned long)cc, false, cc->sync);
		update_nr_listpages(cc);
		/* What could not be moved goes back: each page to the zone it is from. */
		if (err) {
			putback_lru_pages(&cc->migratepages);
			cc->nr_migratepages = 0;
		}
	}

	cc->nr_freepages -= release_freepages(&cc->freepages);
	VM_BUG_ON(cc->nr_freepages != 0);
	trace_compact_end(zone, ret);
	return ret;
}

static unsigned long compact_zone_order(struct zone *zone, int order, gfp_t gfp_mask, bool sync)
{
	struct compact_control cc = {
		.order = order,
		.migratetype = allocflags_to_migratetype(gfp_mask),
		.zone = zone,
		.sync = sync,
	};

	INIT_LIST_HEAD(&cc.freepages);
	INIT_LIST_HEAD(&cc.migratepages);
	return compact_zone(zone, &cc);
}

unsigned long try_to_compact_pages(struct zonelist *zonelist, int order, gfp_t gfp_mask, bool sync)
{
	unsigned long rc = COMPACT_SKIPPED;
	struct zone *zone, **at;

	if (!order || !(gfp_mask & __GFP_FS) || !(gfp_mask & __GFP_IO))
		return rc;
	for_each_zone_zonelist(zone, at, zonelist) {
		unsigned long status = compact_zone_order(zone, order, gfp_mask, sync);

		rc = max(status, rc);
		if (zone_watermark_ok(zone, order, low_wmark_pages(zone), 0, 0))
			break;
	}
	return rc;
}
