/* LRU list bookkeeping (include/linux/mm_inline.h, 2.6.39). The caller says which zone: it is believed. */
#ifndef LINUX_MM_INLINE_H
#define LINUX_MM_INLINE_H

#include <linux/mm.h>
#include <linux/vmstat.h>

static inline void __add_page_to_lru_list(struct zone *zone, struct page *page, enum lru_list l,
					  struct list_head *head)
{
	list_add(&page->lru, head);
	ghost(page, NR_LRU_BASE + l, hpage_nr_pages(page));
	__mod_zone_page_state(zone, NR_LRU_BASE + l, hpage_nr_pages(page));
}

static inline void add_page_to_lru_list(struct zone *zone, struct page *page, enum lru_list l)
{
	__add_page_to_lru_list(zone, page, l, &zone->lru[l].list);
}

static inline void del_page_from_lru_list(struct zone *zone, struct page *page, enum lru_list l)
{
	list_del(&page->lru);
	ghost(page, NR_LRU_BASE + l, -hpage_nr_pages(page));
	__mod_zone_page_state(zone, NR_LRU_BASE + l, -hpage_nr_pages(page));
}

static inline enum lru_list page_lru_base_type(struct page *page)
{
	return page_is_file_cache(page) ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON;
}

static inline enum lru_list page_lru(struct page *page)
{
	enum lru_list lru;

	if (PageUnevictable(page))
		return LRU_UNEVICTABLE;
	lru = page_lru_base_type(page);
	if (PageActive(page))
		lru += LRU_ACTIVE;
	return lru;
}

/* For the last put: also drops what said which list it was, unlocked. */
static inline void del_page_from_lru(struct zone *zone, struct page *page)
{
	enum lru_list l = page_lru(page);

	if (PageUnevictable(page))
		__ClearPageUnevictable(page);
	else
		__ClearPageActive(page);
	del_page_from_lru_list(zone, page, l);
}

#endif
