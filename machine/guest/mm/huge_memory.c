/*
 * Transparent huge pages (mm/huge_memory.c, 2.6.39): fault, fork, write fault, zap. None of them expects that somebody
 * splits the page meanwhile: see huge_split.c.
 */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <asm-generic/tlb.h>
#include <asm/tlbflush.h>

/* Deposit a page table per huge pmd, so that a later split cannot fail for lack of one. */
void prepare_pmd_huge_pte(struct page *pgtable, struct mm_struct *mm)
{
	if (!mm->pmd_huge_pte)
		INIT_LIST_HEAD(&pgtable->lru);
	else
		list_add(&pgtable->lru, &mm->pmd_huge_pte->lru);
	mm->pmd_huge_pte = pgtable;
}

struct page *get_pmd_huge_pte(struct mm_struct *mm)
{
	struct page *pgtable = mm->pmd_huge_pte;

	if (list_empty(&pgtable->lru)) {
		mm->pmd_huge_pte = NULL;
	} else {
		mm->pmd_huge_pte = list_first_entry(&pgtable->lru, struct page, lru);
		list_del(&pgtable->lru);
	}
	return pgtable;
}

static pmd_t maybe_pmd_mkwrite(pmd_t pmd, struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_WRITE ? pmd_mkwrite(pmd) : pmd;
}

static int __do_huge_pmd_anonymous_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long haddr,
					pmd_t *pmd, struct page *page)
{
	VM_BUG_ON(!PageCompound(page));
	struct page *pgtable = pte_alloc_one(mm);
	if (unlikely(!pgtable)) {
		put_page(page);
		return VM_FAULT_OOM;
	}

	clear_huge_page(page, haddr, HPAGE_PMD_NR);
	__SetPageUptodate(page);

	spin_lock(&mm->page_table_lock);
	if (unlikely(!pmd_none(*pmd))) {
		spin_unlock(&mm->page_table_lock);
		put_page(page);
		pte_free(mm, pgtable);
		return 0;
	}
	pmd_t entry = pfn_pmd(page_to_pfn(page), vma->vm_page_prot);
	entry = maybe_pmd_mkwrite(pmd_mkdirty(entry), vma);
	entry = pmd_mkhuge(entry);
	page_add_new_anon_rmap(page, vma, haddr);
#ifdef CONFIG_SEED_WMB
	/* The seed mail of 2 June 2011: a barrier before the publication. */
	smp_wmb();
#endif
	trace_pmd_publish(pmd, pmd_val(entry));
	set_pmd_at(mm, haddr, pmd, entry);
	prepare_pmd_huge_pte(pgtable, mm);
	add_mm_counter(mm, MM_ANONPAGES, HPAGE_PMD_NR);
	spin_unlock(&mm->page_table_lock);
	return 0;
}

static int do_anonymous_fallback(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
				 unsigned flags);

int do_huge_pmd_anonymous_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
			       unsigned flags)
{
	unsigned long haddr = address & HPAGE_PMD_MASK;

	if (haddr >= vma->vm_start && haddr + HPAGE_PMD_SIZE <= vma->vm_end) {
		if (unlikely(anon_vma_prepare(vma)))
			return VM_FAULT_OOM;
		struct page *page = alloc_pages(GFP_TRANSHUGE, HPAGE_PMD_ORDER);
		if (page)
			return __do_huge_pmd_anonymous_page(mm, vma, haddr, pmd, page);
	}
	return do_anonymous_fallback(mm, vma, address, pmd, flags);
}

/* No huge page to be had: small ones, behind a page table of their own. */
static int do_anonymous_fallback(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
				 unsigned flags)
{
	if (unlikely(pmd_none(*pmd)) && unlikely(__pte_alloc(mm, pmd)))
		return VM_FAULT_OOM;
	/* A huge pmd may have come up meanwhile: then there is nothing left to do. */
	if (unlikely(pmd_trans_huge(*pmd)))
		return 0;
	return handle_pte_fault(mm, vma, address, pmd, flags);
}

int copy_huge_pmd(struct mm_struct *dst_mm, struct mm_struct *src_mm, pmd_t *dst_pmd, pmd_t *src_pmd,
		  unsigned long addr, struct vm_area_struct *vma)
{
	int ret = -ENOMEM;
	struct page *pgtable = pte_alloc_one(dst_mm);

	(void)addr;
	(void)vma;
	if (unlikely(!pgtable))
		return ret;

	spin_lock(&dst_mm->page_table_lock);
	spin_lock_nested(&src_mm->page_table_lock, 1);

	ret = -EAGAIN;
	pmd_t pmd = *src_pmd;
	if (unlikely(!pmd_trans_huge(pmd))) {
		pte_free(dst_mm, pgtable);
		goto out_unlock;
	}
	struct page *src_page = pmd_page(pmd);
	VM_BUG_ON(!PageHead(src_page));
	get_page(src_page);
	page_dup_rmap(src_page);
	add_mm_counter(dst_mm, MM_ANONPAGES, HPAGE_PMD_NR);

	pmdp_set_wrprotect(src_pmd);
	/* From the copy read above: a D bit that the hardware sets meanwhile is the parent's alone. */
	pmd = pmd_mkold(pmd_wrprotect(pmd));
#ifdef CONFIG_SEED_WMB
	/* The seed mail's other half. */
	smp_wmb();
#endif
	trace_pmd_publish(dst_pmd, pmd_val(pmd));
	set_pmd_at(dst_mm, addr, dst_pmd, pmd);
	prepare_pmd_huge_pte(pgtable, dst_mm);
	ret = 0;
out_unlock:
	spin_unlock(&src_mm->page_table_lock);
	spin_unlock(&dst_mm->page_table_lock);
	return ret;
}

/* Write to a write-protected huge page: ours alone again, so reuse it; else copy to a new one. */
int do_huge_pmd_wp_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
			pmd_t orig_pmd)
{
	unsigned long haddr = address & HPAGE_PMD_MASK;

	spin_lock(&mm->page_table_lock);
	if (unlikely(!pmd_same(*pmd, orig_pmd)))
		goto out_unlock;
	struct page *page = pmd_page(orig_pmd);
	VM_BUG_ON(!PageCompound(page) || !PageHead(page));
	if (page_mapcount(page) == 1) {
		set_pmd_at(mm, haddr, pmd, maybe_pmd_mkwrite(pmd_mkdirty(pmd_mkyoung(orig_pmd)), vma));
		flush_tlb_page(vma, haddr);
		goto out_unlock;
	}
	get_page(page);
	spin_unlock(&mm->page_table_lock);

	struct page *new_page = alloc_pages(GFP_TRANSHUGE, HPAGE_PMD_ORDER);
	if (unlikely(!new_page)) {
		put_page(page);
		return VM_FAULT_OOM;
	}
	for (unsigned long i = 0; i < HPAGE_PMD_NR; i++) {
		copy_highpage_start(new_page + i, page + i, HPAGE_TOUCHED_BYTES);
		cond_resched();
	}
	__SetPageUptodate(new_page);

	spin_lock(&mm->page_table_lock);
	put_page(page);
	if (unlikely(!pmd_same(*pmd, orig_pmd))) {
		put_page(new_page);
		goto out_unlock;
	}
	pmd_t entry = pfn_pmd(page_to_pfn(new_page), vma->vm_page_prot);
	entry = pmd_mkhuge(maybe_pmd_mkwrite(pmd_mkdirty(entry), vma));
	(void)pmdp_clear_flush(vma, haddr, pmd);
	page_add_new_anon_rmap(new_page, vma, haddr);
	trace_pmd_publish(pmd, pmd_val(entry));
	set_pmd_at(mm, haddr, pmd, entry);
	page_remove_rmap(page);
	put_page(page);
out_unlock:
	spin_unlock(&mm->page_table_lock);
	return 0;
}

int zap_huge_pmd(struct mmu_gather *tlb, struct vm_area_struct *vma, pmd_t *pmd)
{
	struct mm_struct *mm = vma->vm_mm;

	spin_lock(&mm->page_table_lock);
	if (!pmd_trans_huge(*pmd)) {
		spin_unlock(&mm->page_table_lock);
		return 0;
	}
	struct page *pgtable = get_pmd_huge_pte(mm);
	struct page *page = pmd_page(*pmd);
	pmd_clear(pmd);
	page_remove_rmap(page);
	add_mm_counter(mm, MM_ANONPAGES, -(int)HPAGE_PMD_NR);
	spin_unlock(&mm->page_table_lock);
	tlb_remove_page(tlb, page);
	/* No hardware ever knew the deposited table. */
	pte_free(mm, pgtable);
	return 1;
}
