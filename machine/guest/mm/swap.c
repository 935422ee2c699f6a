/* Delayed LRU insertion and the last put (mm/swap.c, 2.6.39). */
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagevec.h>
#include <linux/swap.h>

static DEFINE_PER_CPU(struct pagevec, lru_add_pvecs[NR_LRU_LISTS]);

/* The last reference is gone: off the LRU. Nobody else can reach the page, so its flags change unlocked. */
void __page_cache_release(struct page *page)
{
	unsigned long flags;

	if (!PageLRU(page))
		return;
	struct zone *zone = page_zone(page);
	spin_lock_irqsave(&zone->lru_lock, flags);
	VM_BUG_ON(!PageLRU(page));
	__ClearPageLRU(page);
	del_page_from_lru(zone, page);
	spin_unlock_irqrestore(&zone->lru_lock, flags);
}

void put_page(struct page *page)
{
	VM_BUG_ON(PageTail(page));
	if (!put_page_testzero(page))
		return;
	__page_cache_release(page);
	if (PageHead(page))
		get_compound_page_dtor(page)(page);
	else
		free_hot_cold_page(page, 0);
}

/* Drop one reference of each page; the lru_lock is kept as long as the zone stays the same. */
void release_pages(struct page **pages, int nr)
{
	struct zone *zone = NULL;
	unsigned long flags = 0;
	LIST_HEAD(pages_to_free);

	for (int i = 0; i < nr; i++) {
		struct page *page = pages[i];

		if (unlikely(PageCompound(page))) {
			if (zone) {
				spin_unlock_irqrestore(&zone->lru_lock, flags);
				zone = NULL;
			}
			put_page(page);
			continue;
		}
		if (!put_page_testzero(page))
			continue;
		if (PageLRU(page)) {
			struct zone *pagezone = page_zone(page);

			if (pagezone != zone) {
				if (zone)
					spin_unlock_irqrestore(&zone->lru_lock, flags);
				zone = pagezone;
				spin_lock_irqsave(&zone->lru_lock, flags);
			}
			VM_BUG_ON(!PageLRU(page));
			__ClearPageLRU(page);
			del_page_from_lru(zone, page);
		}
		list_add(&page->lru, &pages_to_free);
	}
	if (zone)
		spin_unlock_irqrestore(&zone->lru_lock, flags);
	while (!list_empty(&pages_to_free)) {
		struct page *page = list_first_entry(&pages_to_free, struct page, lru);

		list_del(&page->lru);
		free_hot_cold_page(page, 0);
	}
}

static void ____pagevec_lru_add_fn(struct page *page, enum lru_list lru)
{
	struct zone *zone = page_zone(page);

	VM_BUG_ON(PageActive(page));
	VM_BUG_ON(PageUnevictable(page));
	VM_BUG_ON(PageLRU(page));
	SetPageLRU(page);
	if (is_active_lru(lru))
		SetPageActive(page);
	add_page_to_lru_list(zone, page, lru);
}

/* Put a pagevec's pages on their zones' lists, then drop the references it held. */
static void ____pagevec_lru_add(struct pagevec *pvec, enum lru_list lru)
{
	struct zone *zone = NULL;
	unsigned long flags = 0;

	for (unsigned i = 0; i < pvec->nr; i++) {
		struct page *page = pvec->pages[i];
		struct zone *pagezone = page_zone(page);

		if (pagezone != zone) {
			if (zone)
				spin_unlock_irqrestore(&zone->lru_lock, flags);
			zone = pagezone;
			spin_lock_irqsave(&zone->lru_lock, flags);
		}
		____pagevec_lru_add_fn(page, lru);
	}
	if (zone)
		spin_unlock_irqrestore(&zone->lru_lock, flags);
	release_pages(pvec->pages, pvec->nr);
	pagevec_init(pvec);
}

void __lru_cache_add(struct page *page, enum lru_list lru)
{
	preempt_disable();
	struct pagevec *pvec = &__get_cpu_var(lru_add_pvecs[lru]);
	get_page(page);
	if (!pagevec_add(pvec, page))
		____pagevec_lru_add(pvec, lru);
	preempt_enable();
}

void lru_cache_add_lru(struct page *page, enum lru_list lru)
{
	if (PageActive(page)) {
		VM_BUG_ON(PageUnevictable(page));
		ClearPageActive(page);
	} else if (PageUnevictable(page)) {
		ClearPageUnevictable(page);
	}
	VM_BUG_ON(PageLRU(page) || PageActive(page) || PageUnevictable(page));
	__lru_cache_add(page, lru);
}

void lru_add_drain_cpu(int cpu)
{
	for (unsigned lru = 0; lru < NR_LRU_LISTS; lru++) {
		struct pagevec *pvec = &per_cpu(lru_add_pvecs[lru], cpu);

		if (pvec->nr)
			____pagevec_lru_add(pvec, lru);
	}
}

void lru_add_drain(void)
{
	lru_add_drain_cpu(get_cpu());
	put_cpu();
}

/* A page that was a huge page's tail goes where its head is, or would be. Caller holds the lru_lock. */
void lru_add_page_tail(struct zone *zone, struct page *page, struct page *page_tail)
{
	enum lru_list lru = PageActive(page) ? LRU_ACTIVE_ANON : LRU_INACTIVE_ANON;

	VM_BUG_ON(!PageHead(page) || PageCompound(page_tail) || PageLRU(page_tail));
	SetPageLRU(page_tail);
	if (PageActive(page))
		SetPageActive(page_tail);
	__add_page_to_lru_list(zone, page_tail, lru, PageLRU(page) ? page->lru.prev : &zone->lru[lru].list);
}
