/* The page upper directory folded into the page global directory (asm-generic/pgtable-nopud.h, 2.6.39). */
#ifndef ASM_GENERIC_PGTABLE_NOPUD_H
#define ASM_GENERIC_PGTABLE_NOPUD_H

#include <linux/types.h>

typedef struct { pgd_t pgd; } pud_t;

#define PUD_SHIFT PGDIR_SHIFT
#define PUD_SIZE (1UL << PUD_SHIFT)

#define __pud(x) ((pud_t) { __pgd(x) })
#define pud_val(x) (pgd_val((x).pgd))

/* A folded entry is always there, and nothing is behind it that could be cleared or freed. */
static inline bool pgd_none(pgd_t pgd) { (void)pgd; return false; }
static inline bool pgd_present(pgd_t pgd) { (void)pgd; return true; }
static inline void pgd_clear(pgd_t *pgd) { (void)pgd; }

static inline pud_t *pud_offset(pgd_t *pgd, unsigned long address)
{
	(void)address;
	return (pud_t *)pgd;
}

#define pud_alloc(mm, pgd, address) ((void)(mm), pud_offset(pgd, address))
#define pud_free(mm, pud) do { (void)(mm); (void)(pud); } while (0)

#endif
