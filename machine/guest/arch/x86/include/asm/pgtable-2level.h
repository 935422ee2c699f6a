/*
 * Two-level page tables: pud and pmd are folded into the page directory entry (pgtable-2level.h and
 * asm-generic/pgtable-nopmd.h, 2.6.39). Every entry is one 32-bit word: setting it is one store.
 */
#ifndef ASM_PGTABLE_2LEVEL_H
#define ASM_PGTABLE_2LEVEL_H

#include <asm/page.h>

#define PGDIR_SHIFT 22
#define PMD_SHIFT 22
#define PMD_SIZE (1UL << PMD_SHIFT)
#define PMD_MASK (~(PMD_SIZE - 1))
#define PTRS_PER_PGD 1024
#define PTRS_PER_PTE 1024
#define KERNEL_PGD_BOUNDARY (PAGE_OFFSET >> PGDIR_SHIFT)

typedef struct { u32 pte_low; } pte_t;
/* What Linux calls pgd, pud and pmd is one word here. */
typedef struct { u32 pmd; } pmd_t;
typedef pmd_t pgd_t;

#define __pte(x) ((pte_t) { (x) })
#define __pmd(x) ((pmd_t) { (x) })
#define pte_val(x) ((x).pte_low)
#define pmd_val(x) ((x).pmd)

static inline void set_pte(pte_t *ptep, pte_t pte)
{
	*(volatile u32 *)&ptep->pte_low = pte.pte_low;
}

static inline void set_pmd(pmd_t *pmdp, pmd_t pmd)
{
	*(volatile u32 *)&pmdp->pmd = pmd.pmd;
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

/*
 * Swap entries in a not present pte: bits 1..5 type, 8.. offset; PSE (bit 7) and PROTNONE (bit 8 of Linux) stay clear
 * for our types.
 */
#define SWP_TYPE(x) (((x) >> 1) & 0x1f)
#define SWP_OFFSET(x) ((x) >> 9)
#define SWP_ENTRY(type, offset) (((u32)(type) << 1) | ((u32)(offset) << 9))

#endif
