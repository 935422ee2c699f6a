/* Reclaim (mm/vmscan.c, 2.6.39), as far as the guest needs it: isolating, throttling, putting back. */
#ifdef CONFIG_SEED_CLAMP
#define VMSTAT_CLAMP
#endif
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagevec.h>
#include <linux/swap.h>
#include "internal.h"

#define DEF_PRIORITY 12

struct scan_control {
	unsigned long nr_scanned;
	unsigned long nr_reclaimed;
	unsigned long nr_to_reclaim;
	gfp_t gfp_mask;
	int order;
};

/* -- isolating and putting back single pages -- */

/*
 * For callers that hold the lru_lock and no reference. Neither the list nor a counter is touched, and PageLRU goes only
 * once a reference is held.
 */
int __isolate_lru_page(struct page *page, int mode, int file)
{
	if (!PageLRU(page))
		return -EINVAL;
	if (mode != ISOLATE_BOTH && (PageActive(page) != mode || page_is_file_cache(page) != file))
		return -EINVAL;
	if (PageUnevictable(page))
		return -EINVAL;
	if (!get_page_unless_zero(page))
		return -EBUSY;
	ClearPageLRU(page);
	return 0;
}

/* For callers that hold a reference. NR_ISOLATED is the caller's business. */
int isolate_lru_page(struct page *page)
{
	int ret = -EBUSY;

	if (!PageLRU(page))
		return ret;
	struct zone *zone = page_zone(page);
	spin_lock_irq(&zone->lru_lock);
	if (PageLRU(page) && get_page_unless_zero(page)) {
		enum lru_list lru = page_lru(page);

		ret = 0;
		ClearPageLRU(page);
		trace_page_isolate(page, zone);
		del_page_from_lru_list(zone, page, lru);
	}
	spin_unlock_irq(&zone->lru_lock);
	return ret;
}

/* Back to the LRU by way of a pagevec; the isolation's reference goes last. No page here is ever mlocked. */
void putback_lru_page(struct page *page)
{
	VM_BUG_ON(PageLRU(page));
	bool active = TestClearPageActive(page);
	ClearPageUnevictable(page);
	lru_cache_add_lru(page, active + page_lru_base_type(page));
	put_page(page);
}

/* -- one pass over an inactive list -- */

static unsigned long zone_nr_lru_pages(struct zone *zone, enum lru_list lru)
{
	return zone_page_state(zone, NR_LRU_BASE + lru);
}

/*
 * Are too many pages of this class off the list already? Unsigned on both sides: on UP a counter of -n reads 2^32 - n,
 * and the answer is yes until somebody repairs it.
 */
static bool too_many_isolated(struct zone *zone, int file)
{
	unsigned long inactive, isolated;

	if (current->flags & PF_KSWAPD)
		return false;
	if (file) {
		inactive = zone_page_state(zone, NR_INACTIVE_FILE);
		isolated = zone_page_state(zone, NR_ISOLATED_FILE);
	} else {
		inactive = zone_page_state(zone, NR_INACTIVE_ANON);
		isolated = zone_page_state(zone, NR_ISOLATED_ANON);
	}
	return isolated > inactive;
}

/* From the tail of `src` to `dst`; pages that cannot be had go to the head. */
static unsigned long isolate_lru_pages(unsigned long nr_to_scan, struct list_head *src, struct list_head *dst,
				       unsigned long *scanned, struct zone *zone, int file)
{
	unsigned long nr_taken = 0, scan;

	for (scan = 0; scan < nr_to_scan && !list_empty(src); scan++) {
		struct page *page = list_entry(src->prev, struct page, lru);

		VM_BUG_ON(!PageLRU(page));
		switch (__isolate_lru_page(page, ISOLATE_INACTIVE, file)) {
		case 0:
			trace_page_isolate(page, zone);
			list_move(&page->lru, dst);
			nr_taken += hpage_nr_pages(page);
			break;
		case -EBUSY:
			list_move(&page->lru, src);
			break;
		default:
			BUG();
		}
	}
	*scanned = scan;
	return nr_taken;
}

/* Count what was taken, per list in base pages, and clear Active. */
static void clear_active_flags(struct list_head *page_list, unsigned *count)
{
	struct page *page;

	list_for_each_entry(page, page_list, lru) {
		enum lru_list lru = page_lru_base_type(page);
		int nr_pages = hpage_nr_pages(page);

		ghost(page, NR_LRU_BASE + lru + PageActive(page), -nr_pages);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), nr_pages);
		if (PageActive(page)) {
			lru += LRU_ACTIVE;
			ClearPageActive(page);
		}
		count[lru] += nr_pages;
	}
}

/* Still under the lru_lock. The sums are handed out, so that the very same numbers are subtracted later. */
static void update_isolated_counts(struct zone *zone, unsigned long *nr_anon, unsigned long *nr_file,
				   struct list_head *isolated_list)
{
	unsigned count[NR_LRU_LISTS] = { 0 };

	clear_active_flags(isolated_list, count);
	__mod_zone_page_state(zone, NR_ACTIVE_FILE, -count[LRU_ACTIVE_FILE]);
	__mod_zone_page_state(zone, NR_INACTIVE_FILE, -count[LRU_INACTIVE_FILE]);
	__mod_zone_page_state(zone, NR_ACTIVE_ANON, -count[LRU_ACTIVE_ANON]);
	__mod_zone_page_state(zone, NR_INACTIVE_ANON, -count[LRU_INACTIVE_ANON]);

	*nr_anon = count[LRU_ACTIVE_ANON] + count[LRU_INACTIVE_ANON];
	*nr_file = count[LRU_ACTIVE_FILE] + count[LRU_INACTIVE_FILE];
	__mod_zone_page_state(zone, NR_ISOLATED_ANON, *nr_anon);
	__mod_zone_page_state(zone, NR_ISOLATED_FILE, *nr_file);
}

/*
 * There is neither swap nor a file system behind the guest's pages, so every page is kept ("keep_locked" in Linux) and
 * goes back where it came from.
 */
static unsigned long shrink_page_list(struct list_head *page_list, struct zone *zone)
{
	struct page *page;

	cond_resched();
	list_for_each_entry(page, page_list, lru) {
		if (!trylock_page(page))
			continue;
		VM_BUG_ON(PageActive(page));
		VM_BUG_ON(page_zone(page) != zone);
		unlock_page(page);
	}
	return 0;
}

/* Straight onto the lists; the pagevec only collects references to drop. */
static void putback_lru_pages(struct zone *zone, unsigned long nr_anon, unsigned long nr_file,
			      struct list_head *page_list)
{
	struct pagevec pvec;

	pagevec_init(&pvec);
	spin_lock(&zone->lru_lock);
	while (!list_empty(page_list)) {
		struct page *page = list_entry(page_list->prev, struct page, lru);

		VM_BUG_ON(PageLRU(page));
		trace_page_putback(page);
		list_del(&page->lru);
		SetPageLRU(page);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), -hpage_nr_pages(page));
		add_page_to_lru_list(zone, page, page_lru(page));
		if (!pagevec_add(&pvec, page)) {
			spin_unlock_irq(&zone->lru_lock);
			release_pages(pvec.pages, pvec.nr);
			pagevec_init(&pvec);
			spin_lock_irq(&zone->lru_lock);
		}
	}
	__mod_zone_page_state(zone, NR_ISOLATED_ANON, -nr_anon);
	__mod_zone_page_state(zone, NR_ISOLATED_FILE, -nr_file);
	spin_unlock_irq(&zone->lru_lock);
	release_pages(pvec.pages, pvec.nr);
}

static unsigned long shrink_inactive_list(unsigned long nr_to_scan, struct zone *zone, struct scan_control *sc,
					  int file)
{
	LIST_HEAD(page_list);
	unsigned long nr_scanned, nr_anon, nr_file;

	while (unlikely(too_many_isolated(zone, file))) {
		trace_stall(zone, NR_ISOLATED_ANON + file);
		congestion_wait(HZ / 10);
		/* We are about to die and free our memory. */
		if (fatal_signal_pending(current))
			return SWAP_CLUSTER_MAX;
	}

	lru_add_drain();
	spin_lock_irq(&zone->lru_lock);
	unsigned long nr_taken = isolate_lru_pages(nr_to_scan, &zone->lru[file ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON].list,
						   &page_list, &nr_scanned, zone, file);
	zone->pages_scanned += nr_scanned;
	sc->nr_scanned += nr_scanned;
	if (nr_taken == 0) {
		spin_unlock_irq(&zone->lru_lock);
		return 0;
	}
	update_isolated_counts(zone, &nr_anon, &nr_file, &page_list);
	spin_unlock_irq(&zone->lru_lock);

	unsigned long nr_reclaimed = shrink_page_list(&page_list, zone);

	local_irq_disable();
	putback_lru_pages(zone, nr_anon, nr_file, &page_list);
	return nr_reclaimed;
}

/* -- the callers above -- */

/* Scans too small to be worth a lock round trip are saved up. */
static unsigned long nr_scan_try_batch(unsigned long nr_to_scan, unsigned long *nr_saved_scan)
{
	*nr_saved_scan += nr_to_scan;
	unsigned long nr = *nr_saved_scan;
	if (nr < SWAP_CLUSTER_MAX)
		return 0;
	*nr_saved_scan = 0;
	return nr;
}

/*
 * The inactive file list only: without swap Linux leaves the anonymous lists alone too, and the scenarios never let the
 * active list outgrow the inactive one.
 */
static void shrink_zone(int priority, struct zone *zone, struct scan_control *sc)
{
	struct zone_lru *lru = &zone->lru[LRU_INACTIVE_FILE];
	unsigned long nr = nr_scan_try_batch(zone_nr_lru_pages(zone, LRU_INACTIVE_FILE) >> priority, &lru->nr_saved_scan);

	while (nr) {
		unsigned long nr_to_scan = min(nr, SWAP_CLUSTER_MAX);

		nr -= nr_to_scan;
		sc->nr_reclaimed += shrink_inactive_list(nr_to_scan, zone, sc, 1);
		if (sc->nr_reclaimed >= sc->nr_to_reclaim && priority < DEF_PRIORITY)
			break;
	}
}

static void shrink_zones(int priority, struct zonelist *zonelist, struct scan_control *sc)
{
	struct zone *zone, **at;

	for_each_zone_zonelist(zone, at, zonelist)
		shrink_zone(priority, zone, sc);
}

unsigned long try_to_free_pages(struct zonelist *zonelist, int order, gfp_t gfp_mask)
{
	struct scan_control sc = { .nr_to_reclaim = SWAP_CLUSTER_MAX, .gfp_mask = gfp_mask, .order = order };

	for (int priority = DEF_PRIORITY; priority >= 0; priority--) {
		sc.nr_scanned = 0;
		shrink_zones(priority, zonelist, &sc);
		if (sc.nr_reclaimed >= sc.nr_to_reclaim)
			break;
		/* Scanned much and got nothing: let others run. */
		if (sc.nr_scanned && priority < DEF_PRIORITY - 2)
			cond_resched();
	}
	return sc.nr_reclaimed;
}
