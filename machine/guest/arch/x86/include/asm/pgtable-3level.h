/*
 * PAE: three levels of 64-bit entries that a 32-bit CPU writes in halves (pgtable-3level.h and pgtable-3level_types.h,
 * 2.6.39). The low half has the present bit, so it is written last and cleared first; an entry that the hardware may be
 * using (a pmd) is set by CMPXCHG8B. The four top entries are latched when CR3 is loaded.
 */
#ifndef ASM_PGTABLE_3LEVEL_H
#define ASM_PGTABLE_3LEVEL_H

#include <asm/page.h>

#define PAGETABLE_LEVELS 3
#define PGDIR_SHIFT 30
#define PMD_SHIFT 21
#define PTRS_PER_PGD 4
#define PTRS_PER_PMD 512
#define PTRS_PER_PTE 512

typedef u64 pteval_t;
typedef union {
	struct { u32 pte_low, pte_high; };
	pteval_t pte;
} pte_t;
typedef struct { pteval_t pgd; } pgd_t;
typedef struct { pteval_t pmd; } pmd_t;

#define __pte(x) ((pte_t) { .pte = (x) })
#define __pmd(x) ((pmd_t) { (x) })
#define __pgd(x) ((pgd_t) { (x) })
#define pte_val(x) ((x).pte)
#define pmd_val(x) ((x).pmd)
#define pgd_val(x) ((x).pgd)
#define pte_flags_word(ptep) (&(ptep)->pte_low)
#define pmd_flags_word(pmdp) ((u32 *)(pmdp))

#include <asm-generic/pgtable-nopud.h>

/* Legal only where the old entry is not present, or the hardware cannot be updating it. */
static inline void set_pte(pte_t *ptep, pte_t pte)
{
	*(volatile u32 *)&ptep->pte_high = pte.pte_high;
	smp_wmb();
	*(volatile u32 *)&ptep->pte_low = pte.pte_low;
}

static inline void set_pmd(pmd_t *pmdp, pmd_t pmd)
{
	set_64bit(&pmdp->pmd, pmd_val(pmd));
}

static inline void set_pud(pud_t *pudp, pud_t pud)
{
	set_64bit(&pudp->pgd.pgd, pud_val(pud));
}

static inline void native_pte_clear(pte_t *ptep)
{
	*(volatile u32 *)&ptep->pte_low = 0;
	smp_wmb();
	*(volatile u32 *)&ptep->pte_high = 0;
}

static inline void pmd_clear(pmd_t *pmdp)
{
	volatile u32 *half = (u32 *)pmdp;

	half[0] = 0;
	smp_wmb();
	half[1] = 0;
}

/* Not followed by a flush: whoever clears a top entry is tearing the whole address space down. */
static inline void pud_clear(pud_t *pudp)
{
	set_pud(pudp, __pud(0));
}

static inline u64 native_get_and_clear(u64 *entry)
{
	volatile u32 *half = (u32 *)entry;
#ifdef CONFIG_SMP
	/* Once the low half is gone, the hardware leaves the entry alone. */
	u32 low = xchg(&half[0], 0);
	u32 high = half[1];

	half[1] = 0;
#else
	u32 low = half[0], high = half[1];

	half[0] = 0;
	smp_wmb();
	half[1] = 0;
#endif
	return low | (u64)high << 32;
}

/*
 * Another value in place of the old one, which is returned as it was when the hardware could still change it. Only for
 * values that are not present: then halves are good enough, on UP as on SMP.
 */
static inline pmd_t pmdp_establish(pmd_t *pmdp, pmd_t pmd)
{
	volatile u32 *half = (u32 *)pmdp;
	u32 low = xchg(&half[0], (u32)pmd_val(pmd));
	u32 high = half[1];

	half[1] = (u32)(pmd_val(pmd) >> 32);
	return __pmd(low | (u64)high << 32);
}

#define native_ptep_get_and_clear(ptep) __pte(native_get_and_clear(&(ptep)->pte))
#define native_pmdp_get_and_clear(pmdp) __pmd(native_get_and_clear(&(pmdp)->pmd))

/* Swap entries lie in the high half alone. */
#define __swp_type(x) ((x).val & 0x1f)
#define __swp_offset(x) ((x).val >> 5)
#define __swp_entry(type, offset) ((swp_entry_t) { (type) | ((offset) << 5) })
#define __pte_to_swp_entry(pte) ((swp_entry_t) { (pte).pte_high })
#define __swp_entry_to_pte(x) ((pte_t) { .pte = (u64)(x).val << 32 })

#endif
