/* The store buffer of a CPU: x86-TSO (Owens, Sarkar, Sewell, TPHOLs 2009), bytes instead of words.
 *
 * A FIFO of stores that have been issued and are not yet visible to others. Loads of the own CPU take each byte from
 * the youngest buffered store that covers it, else from memory.
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

#endif
