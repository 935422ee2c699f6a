/* Four levels; every entry is one 64-bit word: setting it is one store (pgtable_64.h, pgtable_64_types.h, 2.6.39). */
#ifndef ASM_PGTABLE_64_H
#define ASM_PGTABLE_64_H

#include <asm/page.h>

#define PAGETABLE_LEVELS 4
#define PGDIR_SHIFT 39
#define PUD_SHIFT 30
#define PMD_SHIFT 21
#define PTRS_PER_PGD 512
#define PTRS_PER_PUD 512
#define PTRS_PER_PMD 512
#define PTRS_PER_PTE 512
#define PUD_SIZE (1UL << PUD_SHIFT)

typedef u64 pteval_t;
typedef struct { pteval_t pte; } pte_t;
typedef struct { pteval_t pmd; } pmd_t;
typedef struct { pteval_t pud; } pud_t;
typedef struct { pteval_t pgd; } pgd_t;

#define __pte(x) ((pte_t) { (x) })
#define __pmd(x) ((pmd_t) { (x) })
#define __pud(x) ((pud_t) { (x) })
#define __pgd(x) ((pgd_t) { (x) })
#define pte_val(x) ((x).pte)
#define pmd_val(x) ((x).pmd)
#define pud_val(x) ((x).pud)
#define pgd_val(x) ((x).pgd)
#define pte_flags_word(ptep) (&(ptep)->pte)
#define pmd_flags_word(pmdp) (&(pmdp)->pmd)

static inline void set_pte(pte_t *ptep, pte_t pte)
{
	*(volatile u64 *)&ptep->pte = pte.pte;
}

static inline void set_pmd(pmd_t *pmdp, pmd_t pmd)
{
	*(volatile u64 *)&pmdp->pmd = pmd.pmd;
}

static inline void set_pud(pud_t *pudp, pud_t pud)
{
	*(volatile u64 *)&pudp->pud = pud.pud;
}

static inline void set_pgd(pgd_t *pgdp, pgd_t pgd)
{
	*(volatile u64 *)&pgdp->pgd = pgd.pgd;
}

static inline void native_pte_clear(pte_t *ptep) { set_pte(ptep, __pte(0)); }
static inline void pmd_clear(pmd_t *pmdp) { set_pmd(pmdp, __pmd(0)); }
static inline void pud_clear(pud_t *pudp) { set_pud(pudp, __pud(0)); }
static inline void pgd_clear(pgd_t *pgdp) { set_pgd(pgdp, __pgd(0)); }

static inline u64 native_get_and_clear(u64 *entry)
{
#ifdef CONFIG_SMP
	return xchg64(entry, 0);
#else
	/* No other CPU's page walk can set A or D in between: load, then store. */
	u64 value = *(volatile u64 *)entry;

	*(volatile u64 *)entry = 0;
	return value;
#endif
}

/* Another value in place of the old one, which is returned as it was at that very moment. */
static inline pmd_t pmdp_establish(pmd_t *pmdp, pmd_t pmd)
{
#ifdef CONFIG_SMP
	return __pmd(xchg64(pmd_flags_word(pmdp), pmd_val(pmd)));
#else
	pmd_t old = *pmdp;

	set_pmd(pmdp, pmd);
	return old;
#endif
}

#define native_ptep_get_and_clear(ptep) __pte(native_get_and_clear(&(ptep)->pte))
#define native_pmdp_get_and_clear(pmdp) __pmd(native_get_and_clear(&(pmdp)->pmd))

/* Swap entries in a not present pte, as in pgtable-2level.h. */
#define __swp_type(x) (((x).val >> 1) & 0x1f)
#define __swp_offset(x) ((x).val >> 9)
#define __swp_entry(type, offset) ((swp_entry_t) { ((type) << 1) | ((offset) << 9) })
#define __pte_to_swp_entry(pte) ((swp_entry_t) { (pte).pte })
#define __swp_entry_to_pte(x) __pte((x).val)

#endif
