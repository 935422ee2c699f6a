/* The page middle directory folded into the page upper directory (asm-generic/pgtable-nopmd.h, 2.6.39). */
#ifndef ASM_GENERIC_PGTABLE_NOPMD_H
#define ASM_GENERIC_PGTABLE_NOPMD_H

#include <asm-generic/pgtable-nopud.h>

typedef struct { pud_t pud; } pmd_t;

#define PMD_SHIFT PUD_SHIFT

#define __pmd(x) ((pmd_t) { __pud(x) })
#define pmd_val(x) (pud_val((x).pud))

static inline bool pud_none(pud_t pud) { (void)pud; return false; }
static inline bool pud_present(pud_t pud) { (void)pud; return true; }
static inline void pud_clear(pud_t *pud) { (void)pud; }

static inline pmd_t *pmd_offset(pud_t *pud, unsigned long address)
{
	(void)address;
	return (pmd_t *)pud;
}

#define pmd_alloc(mm, pud, address) ((void)(mm), pmd_offset(pud, address))
#define pmd_free(mm, pmd) do { (void)(mm); (void)(pmd); } while (0)

#endif
