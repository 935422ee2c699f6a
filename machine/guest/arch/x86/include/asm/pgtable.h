/* Page table entries (arch/x86/include/asm/pgtable.h and pgtable_types.h, 2.6.39). */
#ifndef ASM_PGTABLE_H
#define ASM_PGTABLE_H

#include <asm/bitops.h>
#ifdef CONFIG_X86_64
#include <asm/pgtable_64.h>
#elif defined(CONFIG_X86_PAE)
#include <asm/pgtable-3level.h>
#else
#include <asm/pgtable-2level.h>
#endif

#define PGDIR_SIZE (1UL << PGDIR_SHIFT)
#define PMD_SIZE (1UL << PMD_SHIFT)
#define PMD_MASK (~(PMD_SIZE - 1))
#define KERNEL_PGD_BOUNDARY pgd_index(PAGE_OFFSET)

#define _PAGE_BIT_RW 1
#define _PAGE_BIT_ACCESSED 5
#define _PAGE_BIT_SPLITTING 9	/* software bit, in a huge pmd only */

#define _PAGE_PRESENT ((pteval_t)0x001)
#define _PAGE_RW ((pteval_t)0x002)
#define _PAGE_USER ((pteval_t)0x004)
#define _PAGE_PCD ((pteval_t)0x010)
#define _PAGE_ACCESSED ((pteval_t)0x020)
#define _PAGE_DIRTY ((pteval_t)0x040)
#define _PAGE_PSE ((pteval_t)0x080)
#define _PAGE_SPLITTING ((pteval_t)1 << _PAGE_BIT_SPLITTING)
#if PAGETABLE_LEVELS > 2
#define _PAGE_NX ((pteval_t)1 << 63)
/* Without what the CPU does not have: NX may be reserved. */
extern pteval_t __supported_pte_mask;
/* Frame numbers are below 2^34 on PAE and x86-64 alike. */
#define PTE_PFN_MASK (((pteval_t)1 << 46) - ((pteval_t)1 << PAGE_SHIFT))
#else
#define _PAGE_NX ((pteval_t)0)
#define __supported_pte_mask (~(pteval_t)0)
#define PTE_PFN_MASK ((pteval_t)PAGE_MASK)
#endif

#define _PAGE_TABLE (_PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED | _PAGE_DIRTY)
#define _KERNPG_TABLE (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)
#define PAGE_KERNEL_EXEC (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)
#define PAGE_KERNEL (PAGE_KERNEL_EXEC | _PAGE_NX)
#define PAGE_COPY (_PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED | _PAGE_NX)

#ifdef CONFIG_X86_64
#define swapper_pg_dir init_level4_pgt
#endif
extern pgd_t swapper_pg_dir[PTRS_PER_PGD];

#define PTE_FLAG(name, bit)							\
static inline bool pte_##name(pte_t pte) { return pte_val(pte) & (bit); }	\
static inline bool pmd_##name(pmd_t pmd) { return pmd_val(pmd) & (bit); }
PTE_FLAG(present, _PAGE_PRESENT)
PTE_FLAG(write, _PAGE_RW)
PTE_FLAG(young, _PAGE_ACCESSED)
PTE_FLAG(dirty, _PAGE_DIRTY)
#undef PTE_FLAG

static inline bool pte_none(pte_t pte) { return !pte_val(pte); }
static inline bool pmd_none(pmd_t pmd) { return !pmd_val(pmd); }
#if PAGETABLE_LEVELS > 2
static inline bool pud_none(pud_t pud) { return !pud_val(pud); }
static inline bool pud_present(pud_t pud) { return pud_val(pud) & _PAGE_PRESENT; }
#endif
#if PAGETABLE_LEVELS > 3
static inline bool pgd_none(pgd_t pgd) { return !pgd_val(pgd); }
static inline bool pgd_present(pgd_t pgd) { return pgd_val(pgd) & _PAGE_PRESENT; }
#endif
static inline bool pte_same(pte_t a, pte_t b) { return pte_val(a) == pte_val(b); }
static inline bool pmd_same(pmd_t a, pmd_t b) { return pmd_val(a) == pmd_val(b); }
/* Only the PSE bit decides; a huge pmd may be not present while it is split. */
static inline bool pmd_trans_huge(pmd_t pmd) { return pmd_val(pmd) & _PAGE_PSE; }
static inline bool pmd_trans_splitting(pmd_t pmd) { return pmd_val(pmd) & _PAGE_SPLITTING; }

#define pte_mkwrite(pte) __pte(pte_val(pte) | _PAGE_RW)
#define pte_mkdirty(pte) __pte(pte_val(pte) | _PAGE_DIRTY)
#define pte_mkold(pte) __pte(pte_val(pte) & ~_PAGE_ACCESSED)
#define pte_mkyoung(pte) __pte(pte_val(pte) | _PAGE_ACCESSED)
#define pte_wrprotect(pte) __pte(pte_val(pte) & ~_PAGE_RW)
#define pmd_mkwrite(pmd) __pmd(pmd_val(pmd) | _PAGE_RW)
#define pmd_mkdirty(pmd) __pmd(pmd_val(pmd) | _PAGE_DIRTY)
#define pmd_mkyoung(pmd) __pmd(pmd_val(pmd) | _PAGE_ACCESSED)
#define pmd_mkclean(pmd) __pmd(pmd_val(pmd) & ~_PAGE_DIRTY)
#define pmd_mknotpresent(pmd) __pmd(pmd_val(pmd) & ~_PAGE_PRESENT)
#define pmd_mkold(pmd) __pmd(pmd_val(pmd) & ~_PAGE_ACCESSED)
#define pmd_mkhuge(pmd) __pmd(pmd_val(pmd) | _PAGE_PSE)
#define pmd_wrprotect(pmd) __pmd(pmd_val(pmd) & ~_PAGE_RW)

#define pfn_pte(pfn, prot) __pte(((pteval_t)(pfn) << PAGE_SHIFT) | ((prot) & __supported_pte_mask))
#define pfn_pmd(pfn, prot) __pmd(((pteval_t)(pfn) << PAGE_SHIFT) | ((prot) & __supported_pte_mask))
#define pte_pfn(pte) ((unsigned long)((pte_val(pte) & PTE_PFN_MASK) >> PAGE_SHIFT))
#define pmd_pfn(pmd) ((unsigned long)((pmd_val(pmd) & PTE_PFN_MASK) >> PAGE_SHIFT))

#define set_pte_at(mm, address, ptep, pte) set_pte(ptep, pte)
#define set_pmd_at(mm, address, pmdp, pmd) set_pmd(pmdp, pmd)
#define pte_clear(mm, address, ptep) native_pte_clear(ptep)
#define ptep_get_and_clear(mm, address, ptep) native_ptep_get_and_clear(ptep)
#define pmdp_get_and_clear(mm, address, pmdp) native_pmdp_get_and_clear(pmdp)

/* One atomic byte operation that leaves every other bit to the hardware's A and D updates. */
static inline void ptep_set_wrprotect(pte_t *ptep)
{
	clear_bit(_PAGE_BIT_RW, (volatile unsigned long *)pte_flags_word(ptep));
}

static inline void pmdp_set_wrprotect(pmd_t *pmdp)
{
	clear_bit(_PAGE_BIT_RW, (volatile unsigned long *)pmd_flags_word(pmdp));
}

#define pgd_index(address) (((unsigned long)(address) >> PGDIR_SHIFT) & (PTRS_PER_PGD - 1))
#define pte_index(address) (((unsigned long)(address) >> PAGE_SHIFT) & (PTRS_PER_PTE - 1))
#define pgd_offset(mm, address) ((mm)->pgd + pgd_index(address))

/* Page tables are lowmem pages (no HIGHPTE). */
#define pmd_page_vaddr(pmd) ((unsigned long)__va(pmd_val(pmd) & PTE_PFN_MASK))
#define pte_offset_map(pmdp, address) ((pte_t *)pmd_page_vaddr(*(pmdp)) + pte_index(address))

#if PAGETABLE_LEVELS > 2
#define pmd_index(address) (((unsigned long)(address) >> PMD_SHIFT) & (PTRS_PER_PMD - 1))

static inline pmd_t *pmd_offset(pud_t *pud, unsigned long address)
{
	return (pmd_t *)__va(pud_val(*pud) & PTE_PFN_MASK) + pmd_index(address);
}
#endif

#if PAGETABLE_LEVELS > 3
#define pud_index(address) (((unsigned long)(address) >> PUD_SHIFT) & (PTRS_PER_PUD - 1))

static inline pud_t *pud_offset(pgd_t *pgd, unsigned long address)
{
	return (pud_t *)__va(pgd_val(*pgd) & PTE_PFN_MASK) + pud_index(address);
}
#endif

/* Where the table entry of `size` bytes that holds `address` ends, or the range itself; right at the top too. */
#define table_addr_end(address, end, size) ({					\
	unsigned long next_ = ((address) + (size)) & ~((size) - 1);		\
	next_ - 1 < (end) - 1 ? next_ : (end); })
#define pmd_addr_end(address, end) table_addr_end(address, end, PMD_SIZE)

#endif
