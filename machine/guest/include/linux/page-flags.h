/*
 * Page flags (include/linux/page-flags.h, 2.6.39, x86-32). SetPageX is atomic on one byte, __SetPageX an unlocked
 * read-modify-write of the word, TestClearPageX a BTR on the word.
 */
#ifndef LINUX_PAGE_FLAGS_H
#define LINUX_PAGE_FLAGS_H

#include <asm/bitops.h>
#include <linux/mm_types.h>

enum pageflags {
	PG_locked, PG_error, PG_referenced, PG_uptodate, PG_dirty, PG_lru, PG_active, PG_slab,
	PG_owner_priv_1, PG_arch_1, PG_reserved, PG_private, PG_private_2, PG_writeback, PG_head, PG_tail,
	PG_swapcache, PG_mappedtodisk, PG_reclaim, PG_swapbacked, PG_unevictable, PG_mlocked, PG_hwpoison,
	PG_compound_lock,
	__NR_PAGEFLAGS,
};

#define PAGE_FLAG(Name, name)									\
static inline bool Page##Name(const struct page *page) { return test_bit(PG_##name, &page->flags); }	\
static inline void SetPage##Name(struct page *page) { set_bit(PG_##name, &page->flags); }	\
static inline void ClearPage##Name(struct page *page) { clear_bit(PG_##name, &page->flags); }	\
static inline void __SetPage##Name(struct page *page) { __set_bit(PG_##name, &page->flags); }	\
static inline void __ClearPage##Name(struct page *page) { __clear_bit(PG_##name, &page->flags); }

#define PAGE_FLAG_TESTCLEAR(Name, name)								\
static inline bool TestClearPage##Name(struct page *page) { return test_and_clear_bit(PG_##name, &page->flags); }

PAGE_FLAG(Locked, locked)
PAGE_FLAG(Error, error)
PAGE_FLAG(Referenced, referenced)
PAGE_FLAG(Dirty, dirty)
PAGE_FLAG(LRU, lru)
PAGE_FLAG(Active, active) PAGE_FLAG_TESTCLEAR(Active, active)
PAGE_FLAG(Reserved, reserved)
PAGE_FLAG(Private, private)
PAGE_FLAG(Writeback, writeback)
PAGE_FLAG(Head, head)
PAGE_FLAG(Tail, tail)
PAGE_FLAG(SwapCache, swapcache)
PAGE_FLAG(SwapBacked, swapbacked)
PAGE_FLAG(HWPoison, hwpoison)
PAGE_FLAG(Unevictable, unevictable) PAGE_FLAG_TESTCLEAR(Unevictable, unevictable)

static inline bool PageUptodate(const struct page *page)
{
	bool uptodate = test_bit(PG_uptodate, &page->flags);

	if (uptodate)
		smp_rmb();
	return uptodate;
}

/* The contents must be there before the flag says so (0ed361dec369, 2.6.25). */
static inline void __SetPageUptodate(struct page *page)
{
	smp_wmb();
	__set_bit(PG_uptodate, &page->flags);
}

static inline void SetPageUptodate(struct page *page)
{
	smp_wmb();
	set_bit(PG_uptodate, &page->flags);
}

static inline bool PageCompound(const struct page *page)
{
	return page->flags & ((1UL << PG_head) | (1UL << PG_tail));
}

#define PageTransHuge(page) PageHead(page)
#define PageTransCompound(page) PageCompound(page)

/* A page in the buddy lists says so in _mapcount. */
#define PAGE_BUDDY_MAPCOUNT_VALUE (-128)

static inline bool PageBuddy(const struct page *page)
{
	return atomic_read(&page->_mapcount) == PAGE_BUDDY_MAPCOUNT_VALUE;
}

#define PAGE_FLAGS_CHECK_AT_FREE						\
	(1UL << PG_lru | 1UL << PG_locked | 1UL << PG_private | 1UL << PG_private_2 | 1UL << PG_writeback |	\
	 1UL << PG_reserved | 1UL << PG_slab | 1UL << PG_swapcache | 1UL << PG_active | 1UL << PG_unevictable |	\
	 1UL << PG_mlocked | 1UL << PG_hwpoison | 1UL << PG_compound_lock)
#define PAGE_FLAGS_CHECK_AT_PREP ((1UL << __NR_PAGEFLAGS) - 1)

#endif
