/* LRU lists, filled in batches; reclaim from the tail of the inactive one (mm/swap.c, mm/vmscan.c). */
#include "workload.h"

enum { PAGEVEC_SIZE = 14, SWAP_CLUSTER_MAX = 32 };

static void pagevec_drain(struct node *node)
{
	struct zone *zone = &node->zone;

	spin_lock(&zone->lru_lock);
	for (unsigned i = 0; i < node->pagevec_count; i++) {
		struct page *page = node->pagevec[i];

		bit_set(PG_LRU, &page->flags);
		list_add(&page->lru, &zone->lru[LRU_INACTIVE]);
		zone_stat_mod(zone, NR_INACTIVE, 1);
		/* The page vector's own reference. */
		atomic_dec_and_test(&page->count);
	}
	spin_unlock(&zone->lru_lock);
	node->pagevec_count = 0;
}

void lru_add(struct node *node, struct page *page)
{
	atomic_inc(&page->count);
	node->pagevec[node->pagevec_count++] = page;
	if (node->pagevec_count == PAGEVEC_SIZE)
		pagevec_drain(node);
}

void lru_activate(struct zone *zone, struct page *page)
{
	if (!bit_test(PG_LRU, &page->flags) || bit_test(PG_ACTIVE, &page->flags))
		return;
	if (!bit_test(PG_REFERENCED, &page->flags)) {
		bit_set(PG_REFERENCED, &page->flags);
		return;
	}
	spin_lock(&zone->lru_lock);
	list_del(&page->lru);
	list_add(&page->lru, &zone->lru[LRU_ACTIVE]);
	bit_set(PG_ACTIVE, &page->flags);
	bit_clear(PG_REFERENCED, &page->flags);
	zone_stat_mod(zone, NR_INACTIVE, -1);
	zone_stat_mod(zone, NR_ACTIVE, 1);
	spin_unlock(&zone->lru_lock);
}

static unsigned isolate(struct zone *zone, enum lru from, struct list_head *to)
{
	unsigned taken = 0;

	spin_lock(&zone->lru_lock);
	while (taken < SWAP_CLUSTER_MAX && !list_empty(&zone->lru[from])) {
		struct page *page = list_entry(zone->lru[from].prev, struct page, lru);

		list_del(&page->lru);
		bit_clear(PG_LRU, &page->flags);
		atomic_inc(&page->count);
		list_add(&page->lru, to);
		taken++;
	}
	zone->pages_scanned += taken;
	zone_stat_mod(zone, from == LRU_ACTIVE ? NR_ACTIVE : NR_INACTIVE, -(int)taken);
	spin_unlock(&zone->lru_lock);
	return taken;
}

static void putback(struct zone *zone, struct page *page, enum lru to)
{
	spin_lock(&zone->lru_lock);
	bit_set(PG_LRU, &page->flags);
	if (to == LRU_ACTIVE)
		bit_set(PG_ACTIVE, &page->flags);
	else
		bit_clear(PG_ACTIVE, &page->flags);
	list_add(&page->lru, &zone->lru[to]);
	zone_stat_mod(zone, to == LRU_ACTIVE ? NR_ACTIVE : NR_INACTIVE, 1);
	spin_unlock(&zone->lru_lock);
	atomic_dec_and_test(&page->count);
}

static void shrink_active(struct node *node)
{
	struct list_head pages;

	list_init(&pages);
	isolate(&node->zone, LRU_ACTIVE, &pages);
	while (!list_empty(&pages)) {
		struct page *page = list_entry(pages.prev, struct page, lru);

		list_del(&page->lru);
		putback(&node->zone, page, test_and_clear_young(node, page) ? LRU_ACTIVE : LRU_INACTIVE);
	}
}

/* Returns how many pages it freed or rotated: 0 means that there is nothing to scan. */
unsigned reclaim(struct node *node)
{
	struct zone *zone = &node->zone;
	struct list_head pages;

	if (zone_stat_read(zone, NR_ACTIVE) > zone_stat_read(zone, NR_INACTIVE))
		shrink_active(node);
	list_init(&pages);
	unsigned taken = isolate(zone, LRU_INACTIVE, &pages);
	while (!list_empty(&pages)) {
		struct page *page = list_entry(pages.prev, struct page, lru);

		list_del(&page->lru);
		if (test_and_clear_young(node, page)) {
			putback(zone, page, LRU_ACTIVE);
			continue;
		}
		unmap(node, page);
		/* Isolation's reference, then the mapping's. */
		atomic_dec_and_test(&page->count);
		page_free(zone, page, 0);
	}
	return taken;
}

/* How many of the first `count` inactive pages have been referenced. */
unsigned lru_referenced(const struct zone *zone, unsigned count)
{
	const struct list_head *head = &zone->lru[LRU_INACTIVE];
	unsigned sum = 0;

	for (const struct list_head *l = head->next; l != head && count--; l = l->next)
		if (list_entry(l, struct page, lru)->flags & 1ul << PG_REFERENCED)
			sum++;
	return sum;
}
