/* The TLB: architectural, because a stale translation is something a guest can see.
 *
 * Direct-mapped, small and large pages apart. An entry stays until the guest invalidates it, the schedule evicts it,
 * or another page takes its slot. Sizes are fixed, so that the same run evicts the same entries everywhere.
 */
#ifndef RACETAPE_TLB_H
#define RACETAPE_TLB_H

#include "machine.h"

/* The cached translation of `addr`, or NULL. */
struct tlb_entry *tlb_find(struct cpu *c, uint64_t addr);
/* Caches a translation; records the eviction of what held the slot. `shift` is log2 of the page's size. */
struct tlb_entry *tlb_fill(struct cpu *c, uint64_t addr, uint64_t frame, uint64_t flags, uint32_t shift);
/* INVLPG, and the implicit invalidation of a page fault. */
void tlb_invalidate_page(struct cpu *c, uint64_t addr);
/* CR3 load (`global_too` false) or a change of CR0/CR4 paging bits. */
void tlb_invalidate_all(struct cpu *c, bool global_too);
/* Eviction by the schedule; false if the page is not cached. */
bool tlb_evict(struct cpu *c, uint64_t addr);

#endif
