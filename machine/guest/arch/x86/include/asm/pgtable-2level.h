/*
 * Two-level page tables (pgtable-2level.h and pgtable-2level_types.h, 2.6.39): pud and pmd are folded into the page
 * directory entry. Every entry is one 32-bit word: setting it is one store.
 */
#ifndef ASM_PGTABLE_2LEVEL_H
#define ASM_PGTABLE_2LEVEL_H

#include <asm/page.h>

#define PAGETABLE_LEVELS 2
#define PGDIR_SHIFT 22
#define PTRS_PER_PGD 1024
#define PTRS_PER_PTE 1024

typedef u32 pteval_t;
typedef struct { pteval_t pte_low; } pte_t;
typedef struct { pteval_t pgd; } pgd_t;

#define __pte(x) ((pte_t) { (x) })
#define __pgd(x) ((pgd_t) { (x) })
#define pte_val(x) ((x).pte_low)
#define pgd_val(x) ((x).pgd)
/* The word of an entry that has the hardware's flags. */
#define pte_flags_word(ptep) (&(ptep)->pte_low)
#define pmd_flags_word(pmdp) (&(pmdp)->pud.pgd.pgd)

#include <asm-generic/pgtable-nopmd.h>

static inline void set_pte(pte_t *ptep, pte_t pte)
{
	*(volatile u32 *)&ptep->pte_low = pte.pte_low;
}

static inline void set_pmd(pmd_t *pmdp, pmd_t pmd)
{
	*(volatile u32 *)pmd_flags_word(pmdp) = pmd_val(pmd);
}

static inline void native_pte_clear(pte_t *ptep)
{
	set_pte(ptep, __pte(0));
}

static inline void pmd_clear(pmd_t *pmdp)
{
	set_pmd(pmdp, __pmd(0));
}

static inline u32 native_get_and_clear(u32 *entry)
{
#ifdef CONFIG_SMP
	return xchg(entry, 0);
#else
	/* No other CPU's page walk can set A or D in between: load, then store. */
	u32 value = *(volatile u32 *)entry;

	*(volatile u32 *)entry = 0;
	return value;
#endif
}

/* Another value in place of the old one, which is returned as it was at that very moment. */
static inline pmd_t pmdp_establish(pmd_t *pmdp, pmd_t pmd)
{
#ifdef CONFIG_SMP
	return __pmd(xchg(pmd_flags_word(pmdp), pmd_val(pmd)));
#else
	pmd_t old = *pmdp;

	set_pmd(pmdp, pmd);
	return old;
#endif
}

#define native_ptep_get_and_clear(ptep) __pte(native_get_and_clear(&(ptep)->pte_low))
#define native_pmdp_get_and_clear(pmdp) __pmd(native_get_and_clear(pmd_flags_word(pmdp)))

/*
 * Swap entries in a not present pte: bits 1..5 type, 9.. offset; PSE (bit 7) and PROTNONE (bit 8 of Linux) stay clear
 * for our types.
 */
#define __swp_type(x) (((x).val >> 1) & 0x1f)
#define __swp_offset(x) ((x).val >> 9)
#define __swp_entry(type, offset) ((swp_entry_t) { ((type) << 1) | ((offset) << 9) })
#define __pte_to_swp_entry(pte) ((swp_entry_t) { (pte).pte_low })
#define __swp_entry_to_pte(x) __pte((x).val)

#endif
