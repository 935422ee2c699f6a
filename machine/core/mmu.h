/* Page walks. Intel SDM vol. 3 chapter 4: 32-bit paging with PSE. PAE and 4-level paging are further walkers here. */
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

/* Bits 12 to 21 of a 4 MB page's entry: CPUID announces neither PAT nor PSE-36. */
enum { PDE_LARGE_RESERVED = 0x3ff000 };

enum pf_error { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_RESERVED = 8 };

/* Physical address of `addr` for this access, through the TLB, walking and setting A/D bits where needed.
 * STATUS_FAULT with a #PF described in c->fault. `user` are the rights to use. */
enum status mmu_translate(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint64_t *ret);

/* The same by the page tables as they are now, as supervisor, changing nothing and ignoring the TLB (but seeing the
 * CPU's own store buffer): for inspection. False if not mapped. */
bool mmu_peek(const struct cpu *c, uint64_t addr, uint64_t *ret);

/* Where an access would go now: by the TLB if it holds the page, else by the page tables; changing nothing. */
bool mmu_peek_cached(struct cpu *c, uint64_t addr, uint64_t *ret);

#endif
