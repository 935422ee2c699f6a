#include "store_buffer.h"

void store_buffer_compact(struct cpu *c)
{
	struct store_entry *entries = c->s.store;
	memmove(entries, entries + c->store_first, c->s.store_count * sizeof(*entries));
	memset(entries + c->s.store_count, 0, c->store_first * sizeof(*entries));
	c->store_first = 0;
}

void store_buffer_push(struct cpu *c, uint64_t addr, uint64_t phys, uint32_t size, uint64_t value)
{
	assert(c->s.store_count < STORE_BUFFER_SLOTS);
	assert(size >= 1 && size <= 8);
	if (unlikely(c->store_first + c->s.store_count == STORE_BUFFER_SLOTS))
		store_buffer_compact(c);
	struct store_entry *entry = &c->s.store[c->store_first + c->s.store_count++];
	entry->addr = addr;
	entry->phys = phys;
	entry->size = size;
	entry->value = value & size_mask(size);
	entry->pc = c->pc;
	c->store_filter |= store_filter_bits(phys, size);
	c->stores_in_code |= (c->machine->memory.flags[phys >> PAGE_SHIFT] & PAGE_CODE) != 0;
	if (!c->buffered)
		cpu_update_fast(c);
}

void store_buffer_drain_one(struct cpu *c)
{
	assert(c->s.store_count > 0);
	struct machine *m = c->machine;
	const struct store_entry *entry = store_buffer_entry(c, 0);
	if (m->tap.on)
		tap_append(m, c->number, m->step, entry->pc, EVENT_drain, entry->addr, entry->phys, entry->value,
			   (uint32_t)entry->size, 0);
	memory_write_small(m, entry->phys, entry->value, (uint32_t)entry->size);
	c->store_first++;
	if (--c->s.store_count)
		return;
	c->store_filter = 0;
	c->stores_in_code = false;
	if (!c->hold)
		cpu_update_fast(c);
}

void store_buffer_update_filter(struct cpu *c)
{
	c->store_filter = 0;
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		c->store_filter |= store_filter_bits(e->phys, (uint32_t)e->size);
	}
}

void store_buffer_drain_all(struct cpu *c)
{
	while (c->s.store_count)
		store_buffer_drain_one(c);
}

bool store_buffer_overlaps(const struct cpu *c, uint64_t phys, uint32_t size)
{
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		if (e->phys < phys + size && phys < e->phys + e->size)
			return true;
	}
	return false;
}

/* The value, if the youngest store that touches any of the bytes covers them all. */
static bool forward_whole(const struct cpu *c, uint64_t phys, uint32_t size, uint64_t *ret)
{
	for (uint32_t i = c->s.store_count; i--;) {
		const struct store_entry *e = store_buffer_entry(c, i);
		if (e->phys >= phys + size || phys >= e->phys + e->size)
			continue;
		if (e->phys > phys || phys + size > e->phys + e->size)
			return false;
		*ret = e->value >> (phys - e->phys) * 8 & size_mask(size);
		return true;
	}
	return false;
}

uint64_t store_buffer_read(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info)
{
	uint64_t value;
	if (forward_whole(c, phys, size, &value)) {
		*info |= EVENT_FORWARDED;
		return value;
	}
	value = bytes_load(c->machine->memory.ram + phys, size);
	uint32_t covered = 0; /* one bit a byte */
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		if (e->phys >= phys + size || phys >= e->phys + e->size)
			continue;
		for (uint32_t byte = 0; byte < size; byte++) {
			uint64_t at = phys + byte - e->phys;
			if (at >= e->size)
				continue;
			value &= ~(UINT64_C(0xff) << byte * 8);
			value |= (e->value >> at * 8 & 0xff) << byte * 8;
			covered |= 1u << byte;
		}
	}
	if (covered)
		*info |= covered == (1u << size) - 1 ? EVENT_FORWARDED : EVENT_MERGED;
	return value;
}
