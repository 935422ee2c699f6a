/* The buddy allocator with a list of single pages before it (mm/page_alloc.c). */
#include "workload.h"

enum { PCP_HIGH = 48, PCP_BATCH = 8 };

static void set_order(struct page *page, unsigned order)
{
	page->private = order;
	bit_set(PG_BUDDY, &page->flags);
}

static void take_off(struct zone *zone, struct page *page, unsigned order)
{
	list_del(&page->lru);
	zone->area[order].free_count--;
	bit_clear(PG_BUDDY, &page->flags);
	page->private = 0;
}

static bool is_buddy(const struct page *page, unsigned order)
{
	return bit_test(PG_BUDDY, &page->flags) && page->private == order;
}

static void free_block(struct zone *zone, struct page *page, unsigned order)
{
	unsigned long at = (unsigned long)(page - zone->map);

	while (order < MAX_ORDER - 1) {
		struct page *buddy = zone->map + (at ^ 1ul << order);

		if (!is_buddy(buddy, order))
			break;
		take_off(zone, buddy, order);
		at &= ~(1ul << order);
		order++;
	}
	page = zone->map + at;
	set_order(page, order);
	list_add(&page->lru, &zone->area[order].list);
	zone->area[order].free_count++;
}

static struct page *take_block(struct zone *zone, unsigned order)
{
	for (unsigned have = order; have < MAX_ORDER; have++) {
		struct free_area *area = &zone->area[have];

		if (list_empty(&area->list))
			continue;
		struct page *page = list_entry(area->list.next, struct page, lru);
		take_off(zone, page, have);
		while (have > order) {
			have--;
			struct page *half = page + (1ul << have);
			list_add(&half->lru, &zone->area[have].list);
			zone->area[have].free_count++;
			set_order(half, have);
		}
		return page;
	}
	return NULL;
}

static struct page *pcp_take(struct zone *zone)
{
	if (list_empty(&zone->pcp)) {
		spin_lock(&zone->lock);
		for (unsigned i = 0; i < PCP_BATCH; i++) {
			struct page *page = take_block(zone, 0);
			if (!page)
				break;
			list_add_tail(&page->lru, &zone->pcp);
			zone->pcp_count++;
		}
		spin_unlock(&zone->lock);
		if (list_empty(&zone->pcp))
			return NULL;
	}
	struct page *page = list_entry(zone->pcp.next, struct page, lru);
	list_del(&page->lru);
	zone->pcp_count--;
	return page;
}

static void pcp_drain(struct zone *zone, int count)
{
	spin_lock(&zone->lock);
	zone->pages_scanned = 0;
	while (count--) {
		struct page *page = list_entry(zone->pcp.prev, struct page, lru);
		list_del(&page->lru);
		zone->pcp_count--;
		free_block(zone, page, 0);
	}
	spin_unlock(&zone->lock);
}

static void prepare(struct page *page, unsigned order)
{
	for (unsigned i = 0; i < 1u << order; i++) {
		page[i].flags &= ~0xfful;
		page[i].mapcount = -1;
		page[i].mapping = NULL;
	}
	page->count = 1;
}

struct page *page_alloc(struct node *node, unsigned order)
{
	struct zone *zone = &node->zone;
	struct page *page;

	while ((unsigned long)zone_stat_read(zone, NR_FREE) < zone->watermark_low + (1ul << order))
		if (!reclaim(node))
			break;
	if (order == 0) {
		page = pcp_take(zone);
	} else {
		spin_lock(&zone->lock);
		page = take_block(zone, order);
		spin_unlock(&zone->lock);
	}
	if (!page)
		return NULL;
	zone_stat_mod(zone, NR_FREE, -(1 << order));
	prepare(page, order);
	return page;
}

void page_free(struct zone *zone, struct page *page, unsigned order)
{
	if (!atomic_dec_and_test(&page->count))
		return;
	zone_stat_mod(zone, NR_FREE, 1 << order);
	if (order == 0) {
		list_add(&page->lru, &zone->pcp);
		if (++zone->pcp_count >= PCP_HIGH)
			pcp_drain(zone, PCP_BATCH);
	} else {
		spin_lock(&zone->lock);
		free_block(zone, page, order);
		spin_unlock(&zone->lock);
	}
}

/* How many of `count` page frames could be migrated, as compaction looks at them one after the other. */
unsigned scan_movable(struct zone *zone, unsigned first, unsigned count)
{
	unsigned movable = 0;

	for (unsigned at = first; at < first + count; at++) {
		const struct page *page = &zone->map[at % NODE_PAGES];

		if (bit_test(PG_BUDDY, &page->flags)) {
			at += (1u << page->private) - 1;
			continue;
		}
		if (!bit_test(PG_LRU, &page->flags) || page->mapcount < 0)
			continue;
		if (page->count == page->mapcount + 1)
			movable++;
	}
	return movable;
}

void zone_init(struct zone *zone, struct page *map, unsigned long first_pfn)
{
	zone->map = map;
	zone->first_pfn = first_pfn;
	zone->watermark_low = NODE_PAGES / 32;
	list_init(&zone->pcp);
	for (unsigned i = 0; i < LRU_COUNT; i++)
		list_init(&zone->lru[i]);
	for (unsigned i = 0; i < MAX_ORDER; i++)
		list_init(&zone->area[i].list);
	for (unsigned i = 0; i < NODE_PAGES; i++) {
		map[i].mapcount = -1;
		list_init(&map[i].lru);
	}
	for (unsigned i = 0; i < NODE_PAGES; i++)
		free_block(zone, &map[i], 0);
	zone->stat[NR_FREE] = NODE_PAGES;
}
