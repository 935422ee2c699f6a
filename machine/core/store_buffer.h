/* The store buffer of a CPU: x86-TSO (Owens, Sarkar, Sewell, TPHOLs 2009), bytes instead of words.
 *
 * A FIFO of stores that have been issued and are not yet visible to others. Loads of the own CPU take each byte from
 * the youngest buffered store that covers it, else from memory.
 *
 * Only one CPU runs at a time. So within a chain of instructions (chain.h) RAM may be ahead: it already holds what the CPU that
 * runs has in its buffer, which is what that CPU sees, and `store_behind` what was there before. Loads then read RAM, a
 * store is a store with a note of what it replaced, and a drain only drops the oldest note. Whoever else looks
 * at memory or the buffer, a page walk or another CPU, finds both as they should be: store_buffer_fall_back takes back what
 * is still buffered, and is called by chain_sync, before instructions are decoded, and at the end of every run.
 */
#ifndef RACETAPE_STORE_BUFFER_H
#define RACETAPE_STORE_BUFFER_H

#include "flags.h"
#include "memory.h"
#include "tap.h"

ALWAYS_INLINE bool store_buffer_full(const struct cpu *c)
{
	return c->s.store_count >= c->machine->store_capacity;
}

/* The i-th oldest store. Entries move to the front of their array now and then, and before the state is looked at. */
ALWAYS_INLINE const struct store_entry *store_buffer_entry(const struct cpu *c, uint32_t i)
{
	return &c->s.store[c->store_first + i];
}

void store_buffer_compact(struct cpu *c);
/* Lets RAM be ahead, if it may: the CPU is about to execute a chain. */
void store_buffer_run_ahead(struct cpu *c);
void store_buffer_fall_back(struct cpu *c);

/* The words that an access within one cache line touches, as bits of cpu->store_filter. */
ALWAYS_INLINE uint64_t store_filter_bits(uint64_t phys, uint32_t size)
{
	return UINT64_C(1) << (phys >> 3 & 63) | UINT64_C(1) << ((phys + size - 1) >> 3 & 63);
}

/* Derives cpu->store_filter: drains leave bits behind, which only cost a look. */
void store_buffer_update_filter(struct cpu *c);
void store_buffer_push(struct cpu *c, uint64_t addr, uint64_t phys, uint32_t size, uint64_t value);
/* Writes the oldest store to memory and records the drain; the buffer must not be empty. Takes no step by itself. */
void store_buffer_drain_one(struct cpu *c);
void store_buffer_drain_all(struct cpu *c);
bool store_buffer_overlaps(const struct cpu *c, uint64_t phys, uint32_t size);
/* Value at `phys` (within RAM) as this CPU sees it; sets *info to EVENT_FORWARDED or EVENT_MERGED where it applies. */
uint64_t store_buffer_read(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info);
/* That info alone. */
uint32_t store_buffer_look(const struct cpu *c, uint64_t phys, uint32_t size);

#endif
