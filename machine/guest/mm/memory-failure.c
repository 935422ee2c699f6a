/*
 * Taking a page out of use before it fails (mm/memory-failure.c, 2.6.39): soft_offline_page(), which moves what is in the
 * page elsewhere. Nothing here is about pages that have failed already.
 */
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/swap.h>

atomic_long_t mce_bad_pages;

static struct page *new_page(struct page *page, unsigned long private)
{
	(void)page;
	(void)private;
	return alloc_page(GFP_HIGHUSER_MOVABLE);
}

/* A reference to the page, unless the caller has one for us: 1; 0: it is free, and poisoned now; -EIO: neither. */
static int get_any_page(struct page *page, int flags)
{
	if (flags & MF_COUNT_INCREASED)
		return 1;
	if (get_page_unless_zero(page))
		return 1;
	if (!PageBuddy(page))
		return -EIO;
	SetPageHWPoison(page);
	return 0;
}

/* What sits in this CPU's pagevecs is not isolatable yet. */
static void shake_page(struct page *page)
{
	lru_add_drain();
	if (PageLRU(page) || page_count(page) == 1)
		return;
	drain_pages(get_cpu());
	put_cpu();
}

/*
 * Isolate and migrate one page. migrate_pages() and putback_lru_pages() uncount what they are given, so who isolates must
 * count; that has been the callers' business since 6d9c285a632b (2.6.33), and this one, two days younger, did not know
 * (facb6011f399; fixed by 5db8a73a8d7c, 3.0).
 */
static int isolate_and_migrate(struct page *page)
{
	int ret = isolate_lru_page(page);
	LIST_HEAD(pagelist);

	if (ret)
		return ret;
	ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), 1);
#ifdef CONFIG_FIX_5db8a73a8d7c
	inc_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
#else
	/* Here it should have been counted. */
	trace_vmstat(page_zone(page), NR_ISOLATED_ANON + page_is_file_cache(page));
#endif
	list_add(&page->lru, &pagelist);
	ret = migrate_pages(&pagelist, new_page, 0, false, true);
	if (ret) {
		putback_lru_pages(&pagelist);
		if (ret > 0)
			ret = -EIO;
	}
	return ret;
}

/* Returns 0 if nobody uses the page any more. (Linux's allocator hands out no poisoned pages, the guest's does.) */
int soft_offline_page(struct page *page, int flags)
{
	int ret = get_any_page(page, flags);

	if (ret < 0)
		return ret;
	if (ret == 0)
		goto done;
	if (!PageLRU(page)) {
		put_page(page);
		shake_page(page);
		/* Has it become free? */
		ret = get_any_page(page, 0);
		if (ret < 0)
			return ret;
		if (ret == 0)
			goto done;
	}
	if (!PageLRU(page)) {
		put_page(page);
		return -EIO;
	}

	lock_page(page);
	if (PageHWPoison(page)) {
		unlock_page(page);
		put_page(page);
		return -EBUSY;
	}
	/* No page here is in a file's cache, so none can be had by dropping it from there (invalidate_inode_page()). */
	unlock_page(page);
	/* Migration wants no references but its own: for a moment nothing keeps the page from being freed. */
	put_page(page);
	ret = isolate_and_migrate(page);
	if (ret)
		return ret;
done:
	atomic_long_add(1, &mce_bad_pages);
	SetPageHWPoison(page);
	return 0;
}
