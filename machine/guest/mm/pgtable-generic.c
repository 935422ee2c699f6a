/* Taking an entry away and with it every translation made from it (mm/pgtable-generic.c, 2.6.39). */
#include <linux/huge_mm.h>
#include <asm/tlbflush.h>

pte_t ptep_clear_flush(struct vm_area_struct *vma, unsigned long address, pte_t *ptep)
{
	pte_t pte = ptep_get_and_clear(vma->vm_mm, address, ptep);

	flush_tlb_page(vma, address);
	return pte;
}

pmd_t pmdp_clear_flush(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp)
{
	VM_BUG_ON(address & ~HPAGE_PMD_MASK);
	pmd_t pmd = pmdp_get_and_clear(vma->vm_mm, address, pmdp);

	flush_tlb_range(vma, address, address + HPAGE_PMD_SIZE);
	return pmd;
}

/*
 * Huge still, but not present for a moment; returns what it was. A load and a store, as in 2.6.39's __split_huge_page_map(),
 * lose the A and D that another CPU's page walk sets in between (d52605d7cb30, 4.16).
 */
pmd_t pmdp_invalidate(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp)
{
	VM_BUG_ON(address & ~HPAGE_PMD_MASK);
#ifdef CONFIG_FIX_d52605d7cb30
	pmd_t pmd = pmdp_establish(pmdp, pmd_mknotpresent(*pmdp));
#else
	pmd_t pmd = *(volatile pmd_t *)pmdp;

	set_pmd_at(vma->vm_mm, address, pmdp, pmd_mknotpresent(pmd));
#endif
	flush_tlb_range(vma, address, address + HPAGE_PMD_SIZE);
	return pmd;
}
