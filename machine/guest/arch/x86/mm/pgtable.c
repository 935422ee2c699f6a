/* Page directories of address spaces, and the page tables below them (arch/x86/mm/pgtable.c, 2.6.39). */
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <asm/tlbflush.h>

/* The kernel's part never changes after boot: all directories share its tables. */
static void pgd_ctor(pgd_t *pgd)
{
	clear_words(pgd, KERNEL_PGD_BOUNDARY * sizeof(pgd_t));
	copy_words(pgd + KERNEL_PGD_BOUNDARY, swapper_pg_dir + KERNEL_PGD_BOUNDARY,
		   (PTRS_PER_PGD - KERNEL_PGD_BOUNDARY) * sizeof(pgd_t));
}

#if PAGETABLE_LEVELS > 2
pmd_t *pmd_alloc_one(void)
{
	return (pmd_t *)get_zeroed_page(GFP_KERNEL);
}

void pmd_free(struct mm_struct *mm, pmd_t *pmd)
{
	(void)mm;
	free_pages((unsigned long)pmd, 0);
}
#endif

#ifdef CONFIG_X86_PAE
/*
 * The CPU latches the top entries when CR3 is loaded, so changing one later would cost a flush. All user ones are soon
 * needed anyway: they are there from the start.
 */
static bool pgd_prepopulate_pmd(pgd_t *pgd)
{
	for (unsigned i = 0; i < KERNEL_PGD_BOUNDARY; i++) {
		pmd_t *pmd = pmd_alloc_one();

		if (!pmd)
			return false;
		set_pud((pud_t *)&pgd[i], __pud(__pa(pmd) | _PAGE_PRESENT));
	}
	return true;
}

/* What free_pgtables() has not reached. */
static void pgd_mop_up_pmds(pgd_t *pgd)
{
	for (unsigned i = 0; i < KERNEL_PGD_BOUNDARY; i++) {
		pud_t *pud = (pud_t *)&pgd[i];

		if (!pud_present(*pud))
			continue;
		pmd_t *pmd = pmd_offset(pud, 0);
		pud_clear(pud);
		pmd_free(NULL, pmd);
	}
}
#else
static bool pgd_prepopulate_pmd(pgd_t *pgd) { (void)pgd; return true; }
static void pgd_mop_up_pmds(pgd_t *pgd) { (void)pgd; }
#endif

#if PAGETABLE_LEVELS > 3
pud_t *pud_alloc_one(void)
{
	return (pud_t *)get_zeroed_page(GFP_KERNEL);
}

void pud_free(struct mm_struct *mm, pud_t *pud)
{
	(void)mm;
	free_pages((unsigned long)pud, 0);
}
#endif

pgd_t *pgd_alloc(void)
{
	pgd_t *pgd = (pgd_t *)__get_free_pages(GFP_KERNEL, 0);

	if (!pgd)
		return NULL;
	pgd_ctor(pgd);
	if (!pgd_prepopulate_pmd(pgd)) {
		pgd_free(pgd);
		return NULL;
	}
	return pgd;
}

void pgd_free(pgd_t *pgd)
{
	pgd_mop_up_pmds(pgd);
	free_pages((unsigned long)pgd, 0);
}

/*
 * Mark a huge entry as being split. The hardware goes on using it, which sets A and D meanwhile: hence one atomic operation.
 * The flush is for those who walk the tables without a lock, with interrupts off: it waits for them.
 */
void pmdp_splitting_flush(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp)
{
	VM_BUG_ON(address & ~HPAGE_PMD_MASK);
	if (!test_and_set_bit(_PAGE_BIT_SPLITTING, (volatile unsigned long *)pmd_flags_word(pmdp)))
		flush_tlb_range(vma, address, address + HPAGE_PMD_SIZE);
}
