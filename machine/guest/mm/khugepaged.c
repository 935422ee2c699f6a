/*
 * khugepaged: small pages in place of which one huge page comes (2.6.39; there in mm/huge_memory.c, which would get twice
 * as long here by what only one scenario uses). A collapse isolates all small pages first, and backs out if it does not
 * get one of them.
 */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <asm/tlbflush.h>

/* So many pages may be missing: all but one. */
#define KHUGEPAGED_MAX_PTES_NONE ((int)HPAGE_PMD_NR - 1)

/* Anonymous pages only: 0 stands for page_is_file_cache(page) == false. */
static void release_pte_page(struct page *page)
{
	trace_page_putback(page);
	ghost(page, NR_ISOLATED_ANON + 0, -1);
	dec_zone_page_state(page, NR_ISOLATED_ANON + 0);
	unlock_page(page);
	putback_lru_page(page);
}

/* Those before `end`, which was not isolated itself. */
static void release_pte_pages(pte_t *pte, pte_t *end)
{
	while (--end >= pte) {
		pte_t pteval = *end;

		if (!pte_none(pteval))
			release_pte_page(pte_page(pteval));
	}
}

static bool isolate_pte_page(pte_t pteval)
{
	struct page *page = pte_page(pteval);

	if (!pte_present(pteval) || !pte_write(pteval))
		return false;
	VM_BUG_ON(PageCompound(page));
	BUG_ON(!PageAnon(page));
	VM_BUG_ON(!PageSwapBacked(page));
	/* Not the mapcount: somebody may hold the page without mapping it. */
	if (page_count(page) != 1)
		return false;
	/* The page cannot be freed under us: we hold the page table lock. */
	if (!trylock_page(page))
		return false;
	if (isolate_lru_page(page)) {
		unlock_page(page);
		return false;
	}
	ghost(page, NR_ISOLATED_ANON + 0, 1);
#ifdef CONFIG_FIXED
	inc_zone_page_state(page, NR_ISOLATED_ANON + 0);
#else
	/* Planted: 2.6.39 counts here. */
	trace_vmstat(page_zone(page), NR_ISOLATED_ANON + 0);
#endif
	VM_BUG_ON(!PageLocked(page));
	VM_BUG_ON(PageLRU(page));
	return true;
}

/* Isolate and lock every page there is; all or none. Caller holds the page table lock. */
static bool __collapse_huge_page_isolate(pte_t *pte)
{
	bool referenced = false;
	int none = 0;

	for (pte_t *at = pte; at < pte + HPAGE_PMD_NR; at++) {
		pte_t pteval = *at;

		if (pte_none(pteval) && ++none <= KHUGEPAGED_MAX_PTES_NONE)
			continue;
		if (pte_none(pteval) || !isolate_pte_page(pteval)) {
			release_pte_pages(pte, at);
			return false;
		}
		if (pte_young(pteval) || PageReferenced(pte_page(pteval)))
			referenced = true;
	}
	/* Nobody uses them: not worth a huge page. */
	if (unlikely(!referenced))
		release_pte_pages(pte, pte + HPAGE_PMD_NR);
	return referenced;
}

static void __collapse_huge_page_copy(pte_t *pte, struct page *page, struct vm_area_struct *vma, unsigned long address,
				      spinlock_t *ptl)
{
	for (pte_t *at = pte; at < pte + HPAGE_PMD_NR; at++, page++, address += PAGE_SIZE) {
		pte_t pteval = *at;

		if (pte_none(pteval)) {
			clear_highpage_start(page, HPAGE_TOUCHED_BYTES);
			inc_mm_counter(vma->vm_mm, MM_ANONPAGES);
			continue;
		}
		struct page *src_page = pte_page(pteval);
		copy_highpage_start(page, src_page, HPAGE_TOUCHED_BYTES);
		VM_BUG_ON(page_mapcount(src_page) != 1);
		VM_BUG_ON(page_count(src_page) != 2);
		release_pte_page(src_page);
		/* For preemption, which page_remove_rmap()'s counting does not bear; nobody else uses this table. */
		spin_lock(ptl);
		pte_clear(vma->vm_mm, address, at);
		page_remove_rmap(src_page);
		spin_unlock(ptl);
		put_page(src_page);
	}
}

/* Caller holds mmap_sem for writing. Returns whether the huge page is in place. */
static bool collapse_pmd(struct mm_struct *mm, unsigned long address, struct page *new_page)
{
	struct vm_area_struct *vma = find_vma(mm, address);

	if (!vma || address < vma->vm_start || address + HPAGE_PMD_SIZE > vma->vm_end)
		return false;
	if ((vma->vm_flags & VM_NOHUGEPAGE) || !vma->anon_vma)
		return false;
	pmd_t *pmd = mm_find_pmd(mm, address);
	/* It can neither go away nor become huge under us. */
	if (!pmd || !pmd_present(*pmd) || pmd_trans_huge(*pmd))
		return false;

	/* The table goes out of sight: for faults by mmap_sem, for reverse mapping by the anon_vma's lock. */
	spin_lock(&vma->anon_vma->root->lock);
	pte_t *pte = pte_offset_map(pmd, address);
	spinlock_t *ptl = pte_lockptr(mm, pmd);
	spin_lock(&mm->page_table_lock);
	pmd_t table = pmdp_clear_flush(vma, address, pmd);
	spin_unlock(&mm->page_table_lock);

	spin_lock(ptl);
	bool isolated = __collapse_huge_page_isolate(pte);
	spin_unlock(ptl);
	if (unlikely(!isolated)) {
		spin_lock(&mm->page_table_lock);
		BUG_ON(!pmd_none(*pmd));
		set_pmd_at(mm, address, pmd, table);
		spin_unlock(&mm->page_table_lock);
		spin_unlock(&vma->anon_vma->root->lock);
		return false;
	}
	/* All pages are isolated and locked: reverse mapping leaves them alone. */
	spin_unlock(&vma->anon_vma->root->lock);

	__collapse_huge_page_copy(pte, new_page, vma, address, ptl);
	__SetPageUptodate(new_page);
	struct page *pgtable = pmd_page(table);
	VM_BUG_ON(page_count(pgtable) != 1);
	pmd_t entry = pfn_pmd(page_to_pfn(new_page), vma->vm_page_prot);
	entry = pmd_mkhuge(pmd_mkdirty(entry));
	if (vma->vm_flags & VM_WRITE)
		entry = pmd_mkwrite(entry);
	/* What was copied must be there before the entry says so; taking a lock orders nothing. */
	smp_wmb();

	spin_lock(&mm->page_table_lock);
	BUG_ON(!pmd_none(*pmd));
	page_add_new_anon_rmap(new_page, vma, address);
	trace_pmd_publish(pmd, pmd_val(entry));
	set_pmd_at(mm, address, pmd, entry);
	prepare_pmd_huge_pte(pgtable, mm);
	mm->nr_ptes--;
	spin_unlock(&mm->page_table_lock);
	return true;
}

/* Caller holds mmap_sem for reading, which is given up. */
bool collapse_huge_page(struct mm_struct *mm, unsigned long address)
{
	VM_BUG_ON(address & ~HPAGE_PMD_MASK);
	struct page *new_page = alloc_pages(GFP_TRANSHUGE, HPAGE_PMD_ORDER);

	up_read(&mm->mmap_sem);
	if (unlikely(!new_page))
		return false;
	down_write(&mm->mmap_sem);
	bool collapsed = collapse_pmd(mm, address, new_page);
	if (!collapsed)
		put_page(new_page);
	up_write(&mm->mmap_sem);
	return collapsed;
}

static bool worth_collapsing(pte_t *pte)
{
	bool referenced = false;
	int none = 0;

	for (pte_t *at = pte; at < pte + HPAGE_PMD_NR; at++) {
		pte_t pteval = *at;

		if (pte_none(pteval)) {
			if (++none <= KHUGEPAGED_MAX_PTES_NONE)
				continue;
			return false;
		}
		if (!pte_present(pteval) || !pte_write(pteval))
			return false;
		struct page *page = pte_page(pteval);
		VM_BUG_ON(PageCompound(page));
		if (!PageLRU(page) || PageLocked(page) || !PageAnon(page) || page_count(page) != 1)
			return false;
		if (pte_young(pteval) || PageReferenced(page))
			referenced = true;
	}
	return referenced;
}

/* Look at what one pmd maps and collapse it, if that looks good. Returns whether there is a huge page now. */
bool khugepaged_scan_pmd(struct mm_struct *mm, unsigned long address)
{
	bool ret = false;
	spinlock_t *ptl;

	down_read(&mm->mmap_sem);
	pmd_t *pmd = mm_find_pmd(mm, address);
	if (pmd && pmd_present(*pmd) && !pmd_trans_huge(*pmd)) {
		pte_t *pte = pte_offset_map_lock(mm, pmd, address, &ptl);

		ret = worth_collapsing(pte);
		pte_unmap_unlock(pte, ptl);
	}
	if (ret)
		return collapse_huge_page(mm, address);
	up_read(&mm->mmap_sem);
	return false;
}
