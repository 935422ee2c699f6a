#include "store_buffer.h"

void store_buffer_push(struct cpu *c, uint64_t addr, uint64_t phys, uint32_t size, uint64_t value)
{
	assert(c->s.store_count < STORE_BUFFER_SLOTS);
	assert(size >= 1 && size <= 8);
	c->s.store[c->s.store_count++] = (struct store_entry){
		.addr = addr, .phys = phys, .size = size, .value = value & size_mask(size), .pc = c->pc};
	c->store_filter |= store_filter_bits(phys, size);
	c->stores_in_code |= (c->machine->memory.flags[phys >> PAGE_SHIFT] & PAGE_CODE) != 0;
	cpu_update_fast(c);
}

void store_buffer_drain_one(struct cpu *c)
{
	assert(c->s.store_count > 0);
	struct store_entry entry = c->s.store[0];
	c->s.store_count--;
	memmove(&c->s.store[0], &c->s.store[1], c->s.store_count * sizeof(entry));
	c->s.store[c->s.store_count] = (struct store_entry){0};
	c->stores_in_code &= c->s.store_count != 0;
	store_buffer_update_filter(c);
	cpu_update_fast(c);

	struct machine *m = c->machine;
	memory_write(m, entry.phys, &entry.value, entry.size);
	if (m->tap.on)
		tap_append(m, c->number, m->step, entry.pc, EVENT_drain, entry.addr, entry.phys, entry.value,
			   (uint32_t)entry.size, 0);
}

void store_buffer_update_filter(struct cpu *c)
{
	c->store_filter = 0;
	for (uint32_t i = 0; i < c->s.store_count; i++)
		c->store_filter |= store_filter_bits(c->s.store[i].phys, (uint32_t)c->s.store[i].size);
}

void store_buffer_drain_all(struct cpu *c)
{
	while (c->s.store_count)
		store_buffer_drain_one(c);
}

bool store_buffer_overlaps(const struct cpu *c, uint64_t phys, uint32_t size)
{
	for (uint32_t i = 0; i < c->s.store_count; i++)
		if (c->s.store[i].phys < phys + size && phys < c->s.store[i].phys + c->s.store[i].size)
			return true;
	return false;
}

uint64_t store_buffer_read(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info)
{
	uint64_t value = bytes_load(c->machine->memory.ram + phys, size);
	uint32_t covered = 0; /* one bit a byte */
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = &c->s.store[i];
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
