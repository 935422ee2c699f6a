/* Page table entries (arch/x86/include/asm/pgtable.h and pgtable_types.h, 2.6.39). */
#ifndef ASM_PGTABLE_H
#define ASM_PGTABLE_H

#include <asm/bitops.h>
#include <asm/pgtable-2level.h>

#define _PAGE_BIT_RW 1
#define _PAGE_BIT_ACCESSED 5
#define _PAGE_BIT_SPLITTING 9	/* software bit, in a huge pmd only */

#define _PAGE_PRESENT 0x001U
#define _PAGE_RW 0x002U
#define _PAGE_USER 0x004U
#define _PAGE_PCD 0x010U
#define _PAGE_ACCESSED 0x020U
#define _PAGE_DIRTY 0x040U
#define _PAGE_PSE 0x080U
#define _PAGE_SPLITTING (1U << _PAGE_BIT_SPLITTING)

#define _PAGE_TABLE (_PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED | _PAGE_DIRTY)
#define PAGE_KERNEL (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)
#define PAGE_COPY (_PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED)

extern pmd_t swapper_pg_dir[PTRS_PER_PGD];

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
#define pmd_mkold(pmd) __pmd(pmd_val(pmd) & ~_PAGE_ACCESSED)
#define pmd_mkhuge(pmd) __pmd(pmd_val(pmd) | _PAGE_PSE)
#define pmd_wrprotect(pmd) __pmd(pmd_val(pmd) & ~_PAGE_RW)

#define pfn_pte(pfn, prot) __pte(((u32)(pfn) << PAGE_SHIFT) | (prot))
#define pfn_pmd(pfn, prot) __pmd(((u32)(pfn) << PAGE_SHIFT) | (prot))
#define pte_pfn(pte) (pte_val(pte) >> PAGE_SHIFT)
#define pmd_pfn(pmd) (pmd_val(pmd) >> PAGE_SHIFT)

#define set_pte_at(mm, address, ptep, pte) set_pte(ptep, pte)
#define set_pmd_at(mm, address, pmdp, pmd) set_pmd(pmdp, pmd)
#define pte_clear(mm, address, ptep) set_pte(ptep, __pte(0))
#define pmd_clear(pmdp) set_pmd(pmdp, __pmd(0))
#define ptep_get_and_clear(mm, address, ptep) __pte(native_get_and_clear(&(ptep)->pte_low))
#define pmdp_get_and_clear(mm, address, pmdp) __pmd(native_get_and_clear(&(pmdp)->pmd))

/* One atomic byte operation that leaves every other bit to the hardware's A and D updates. */
static inline void ptep_set_wrprotect(pte_t *ptep)
{
	clear_bit(_PAGE_BIT_RW, (volatile unsigned long *)&ptep->pte_low);
}

static inline void pmdp_set_wrprotect(pmd_t *pmdp)
{
	clear_bit(_PAGE_BIT_RW, (volatile unsigned long *)&pmdp->pmd);
}

#define pgd_index(address) ((unsigned long)(address) >> PGDIR_SHIFT)
#define pte_index(address) (((unsigned long)(address) >> PAGE_SHIFT) & (PTRS_PER_PTE - 1))
/* Folded levels: the pmd of an address is its page directory slot. */
#define pmd_offset_mm(mm, address) ((mm)->pgd + pgd_index(address))
#define pmd_addr_end(address, end) ({						\
	unsigned long next_ = ((address) + PMD_SIZE) & PMD_MASK;		\
	next_ - 1 < (end) - 1 ? next_ : (end); })
/* Page tables are lowmem pages (no HIGHPTE). */
#define pmd_page_vaddr(pmd) ((unsigned long)__va(pmd_val(pmd) & PAGE_MASK))
#define pte_offset_map(pmdp, address) ((pte_t *)pmd_page_vaddr(*(pmdp)) + pte_index(address))

#endif
