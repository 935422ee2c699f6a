/* Page walks. Intel SDM vol. 3 chapter 4: 32-bit paging with PSE, PAE paging, 4-level paging with 2 MB and 1 GB pages. */
#ifndef RACETAPE_MMU_H
#define RACETAPE_MMU_H

#include "access.h"

enum pte_bits {
	PTE_P = 1 << 0,
	PTE_RW = 1 << 1,
	PTE_US = 1 << 2,
	PTE_A = 1 << 5,
	PTE_D = 1 << 6,
	PTE_PS = 1 << 7,
	PTE_G = 1 << 8,
};

#define PTE_NX (UINT64_C(1) << 63)

enum { PHYSICAL_BITS = 40 };
/* Bits of an entry or of CR3 that no physical address has. */
#define PHYSICAL_RESERVED UINT64_C(0x000fff0000000000)
#define PHYSICAL_FRAME UINT64_C(0x000000fffffff000)

enum pf_error { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_RESERVED = 8, PF_FETCH = 16 };

/* log2 of the size of a large page: 22 in 32-bit paging, 21 otherwise (and 30 in 4-level paging). */
ALWAYS_INLINE uint32_t mmu_large_shift(const struct cpu *c)
{
	return c->s.cr4 & CR4_PAE ? 21 : 22;
}

/* Eight bytes of a page-directory-pointer table, as the CPU sees them. */
uint64_t mmu_load_physical(struct cpu *c, uint64_t phys);

/* Physical address of `addr` for this access, through the TLB, walking and setting A/D bits where needed.
 * STATUS_FAULT with a #PF described in c->fault. `user` are the rights to use. */
enum status mmu_translate(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint64_t *ret);

/* The same by the page tables as they are now, as supervisor, changing nothing and ignoring the TLB (but seeing the
 * CPU's own store buffer): for inspection. False if not mapped. */
bool mmu_peek(struct cpu *c, uint64_t addr, uint64_t *ret);

/* Where an access would go now: by the TLB if it holds the page, else by the page tables; changing nothing. */
bool mmu_peek_cached(struct cpu *c, uint64_t addr, uint64_t *ret);

/* Lets accesses to the page of `addr` be fast, if the TLB holds it: looks at nothing in memory. */
void mmu_fill_cached(struct cpu *c, uint64_t addr, bool user);

#endif
