/*
 * Splitting a huge page into its small ones (2.6.39; there in mm/huge_memory.c, from which it stands apart as one scenario
 * only uses it). Whoever might map or unmap the page is kept out by a mark in every entry that maps it, a bit that the
 * hardware ignores, so that user space may go on using the page all the time.
 */
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <asm/tlbflush.h>

/*
 * Planted: a mark that the hardware does take notice of, the lowest bit of the frame, besides the one that it ignores. It
 * is as before again when the entry is looked at.
 */
#ifdef CONFIG_FIXED
#define MARK_SEEN_BY_HARDWARE ((pteval_t)0)
#else
#define MARK_SEEN_BY_HARDWARE ((pteval_t)HPAGE_PMD_SIZE)
#endif

/* The entry that maps a huge page at this address, if it is (not) being split. Caller holds the page_table_lock. */
static pmd_t *page_check_address_pmd(struct page *page, struct mm_struct *mm, unsigned long address, bool splitting)
{
	pmd_t *pmd = mm_find_pmd(mm, address);

	if (!pmd || pmd_none(*pmd) || pmd_page(*pmd) != page)
		return NULL;
	/* Whoever moves entries about splits first. */
	VM_BUG_ON(pmd_trans_splitting(*pmd) != splitting);
	return pmd_trans_huge(*pmd) ? pmd : NULL;
}

static int __split_huge_page_splitting(struct page *page, struct vm_area_struct *vma, unsigned long address)
{
	struct mm_struct *mm = vma->vm_mm;

	spin_lock(&mm->page_table_lock);
	pmd_t *pmd = page_check_address_pmd(page, mm, address, false);
	if (pmd) {
		/* Never none: who finds it huge waits for us, who finds nothing would map something. */
		if (MARK_SEEN_BY_HARDWARE)
			set_pmd_at(mm, address, pmd, __pmd(pmd_val(*pmd) ^ MARK_SEEN_BY_HARDWARE));
		pmdp_splitting_flush(vma, address, pmd);
	}
	spin_unlock(&mm->page_table_lock);
	return pmd != NULL;
}

/* One tail becomes a page of its own. Caller holds the lru_lock and the compound lock. */
static void split_tail(struct zone *zone, struct page *page, struct page *page_tail, unsigned long index)
{
	/* Nobody can take references to tails meanwhile. */
	atomic_sub(atomic_read(&page_tail->_count), &page->_count);
	BUG_ON(atomic_read(&page->_count) <= 0);
	atomic_add(page_mapcount(page) + 1, &page_tail->_count);
	BUG_ON(atomic_read(&page_tail->_count) <= 0);
	/* Once it is no tail any more, references to it may go. */
	smp_mb();

	page_tail->flags &= ~PAGE_FLAGS_CHECK_AT_PREP | (1UL << PG_hwpoison);
	page_tail->flags |= page->flags & (1UL << PG_referenced | 1UL << PG_swapbacked | 1UL << PG_mlocked |
					   1UL << PG_uptodate);
	page_tail->flags |= 1UL << PG_dirty;
	/* No tail any more before first_page is overwritten, nor the head a head. */
	smp_wmb();

	/* The marks keep the head's mapcount as it is, and all of it is every tail's from now on. */
	BUG_ON(page_mapcount(page_tail));
	atomic_set(&page_tail->_mapcount, atomic_read(&page->_mapcount));
	BUG_ON(page_tail->mapping);
	page_tail->mapping = page->mapping;
	page_tail->index = index;
	BUG_ON(!PageAnon(page_tail) || !PageUptodate(page_tail) || !PageDirty(page_tail) || !PageSwapBacked(page_tail));
	lru_add_page_tail(zone, page, page_tail);
}

static void __split_huge_page_refcount(struct page *page)
{
	struct zone *zone = page_zone(page);

	/* Keeps the page on the LRU, or off it, and the counters still. */
	spin_lock_irq(&zone->lru_lock);
	bit_spin_lock(PG_compound_lock, &page->flags);
	for (unsigned long i = 1; i < HPAGE_PMD_NR; i++)
		split_tail(zone, page, page + i, page->index + i);

	ghost(page, NR_ANON_TRANSPARENT_HUGEPAGES, -1);
	__dec_zone_page_state(page, NR_ANON_TRANSPARENT_HUGEPAGES);
	ghost(page, NR_ANON_PAGES, HPAGE_PMD_NR);
	__mod_zone_page_state(zone, NR_ANON_PAGES, HPAGE_PMD_NR);
	/* On the LRU it has counted for all of them. */
	if (PageLRU(page)) {
		ghost(page, NR_LRU_BASE + page_lru(page), -(int)(HPAGE_PMD_NR - 1));
		__mod_zone_page_state(zone, NR_LRU_BASE + page_lru(page), -(int)(HPAGE_PMD_NR - 1));
	}
	ClearPageHead(page);
	bit_spin_unlock(PG_compound_lock, &page->flags);
	spin_unlock_irq(&zone->lru_lock);

	/* Where nothing maps them any more this is the last reference, and freeing takes the lru_lock. */
	for (unsigned long i = 1; i < HPAGE_PMD_NR; i++)
		put_page(page + i);
	BUG_ON(page_count(page) <= 0);
}

static int __split_huge_page_map(struct page *page, struct vm_area_struct *vma, unsigned long address)
{
	struct mm_struct *mm = vma->vm_mm;

	spin_lock(&mm->page_table_lock);
	if (MARK_SEEN_BY_HARDWARE) {
		pmd_t *marked = mm_find_pmd(mm, address);

		set_pmd_at(mm, address, marked, __pmd(pmd_val(*marked) ^ MARK_SEEN_BY_HARDWARE));
	}
	pmd_t *pmd = page_check_address_pmd(page, mm, address, true);
	if (pmd) {
		struct page *pgtable = get_pmd_huge_pte(mm);
		pmd_t table = __pmd(((pteval_t)page_to_pfn(pgtable) << PAGE_SHIFT) | _PAGE_TABLE);

		for (unsigned long i = 0, haddr = address; i < HPAGE_PMD_NR; i++, haddr += PAGE_SIZE) {
			BUG_ON(PageCompound(page + i));
			pte_t entry = pte_mkdirty(pfn_pte(page_to_pfn(page + i), vma->vm_page_prot));
			if (vma->vm_flags & VM_WRITE)
				entry = pte_mkwrite(entry);
			if (!pmd_write(*pmd))
				entry = pte_wrprotect(entry);
			else
				BUG_ON(page_mapcount(page) != 1);
			if (!pmd_young(*pmd))
				entry = pte_mkold(entry);
			pte_t *pte = pte_offset_map(&table, haddr);
			BUG_ON(!pte_none(*pte));
			set_pte_at(mm, haddr, pte, entry);
		}
		mm->nr_ptes++;
		/* Whoever sees the table must see it filled. */
		smp_wmb();
		/*
		 * Some CPUs do not bear a huge and a small translation of the same address at a time: not present for a moment. A
		 * D that is lost there was in all ptes before.
		 */
		(void)pmdp_invalidate(vma, address, pmd);
		set_pmd_at(mm, address, pmd, table);
	}
	spin_unlock(&mm->page_table_lock);
	return pmd != NULL;
}

/* Caller holds the lock of the anon_vma's root. */
static void __split_huge_page(struct page *page, struct anon_vma *anon_vma)
{
	struct anon_vma_chain *avc;
	int mapcount = 0, mapcount2 = 0;

	BUG_ON(!PageHead(page) || PageTail(page));
	list_for_each_entry(avc, &anon_vma->head, same_anon_vma)
		mapcount += __split_huge_page_splitting(page, avc->vma, vma_address(page, avc->vma));
	/* New vmas come last in the list: a child that is forked meanwhile is met, or its parent's mark has been. */
	BUG_ON(mapcount != page_mapcount(page));
	__split_huge_page_refcount(page);
	list_for_each_entry(avc, &anon_vma->head, same_anon_vma)
		mapcount2 += __split_huge_page_map(page, avc->vma, vma_address(page, avc->vma));
	BUG_ON(mapcount != mapcount2);
}

/* Returns 0 if there is no huge page any more. Caller holds a reference to it, or what maps it. */
int split_huge_page(struct page *page)
{
	BUG_ON(!PageAnon(page));
	struct anon_vma *anon_vma = page_lock_anon_vma(page);

	if (!anon_vma)
		return 1;
	if (PageCompound(page)) {
		BUG_ON(!PageSwapBacked(page));
		__split_huge_page(page, anon_vma);
		BUG_ON(PageCompound(page));
	}
	page_unlock_anon_vma(anon_vma);
	return 0;
}

/* Caller holds mmap_sem. */
void split_huge_page_pmd(struct mm_struct *mm, pmd_t *pmd)
{
	spin_lock(&mm->page_table_lock);
	if (unlikely(!pmd_trans_huge(*pmd))) {
		spin_unlock(&mm->page_table_lock);
		return;
	}
	struct page *page = pmd_page(*pmd);
	VM_BUG_ON(!page_count(page));
	get_page(page);
	spin_unlock(&mm->page_table_lock);

	split_huge_page(page);
	put_page(page);
	BUG_ON(pmd_trans_huge(*pmd));
}
