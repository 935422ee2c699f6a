#include "store_buffer.h"

#include "pool.h"
#include "visible.h"

void store_buffer_compact(struct cpu *c)
{
	uint32_t count = c->s.store_count;
	if (!c->store_first)
		return;
	memmove(c->s.store, c->s.store + c->store_first, count * sizeof(c->s.store[0]));
	memmove(c->store_behind, c->store_behind + c->store_first, count * sizeof(c->store_behind[0]));
	c->store_first = 0;
}

/* Shorter runs do not get back what it costs. */
enum { AHEAD_STEPS_MIN = 16 };

static bool may_run_ahead(const struct cpu *c)
{
	const struct machine *m = c->machine;
	if (!c->buffered || c->careful || c->stores_in_code || (int64_t)(m->chain_end - m->step) < AHEAD_STEPS_MIN)
		return false;
	/* Making room must not empty the buffer if stores are not to be held: what follows would not be buffered. */
	if (!c->hold && m->store_capacity == 1)
		return false;
	/* Pages that somebody has to notice when they are written wait for the drain. */
	for (uint32_t i = 0; i < c->s.store_count; i++)
		if ((m->memory.flags[store_buffer_entry(c, i)->phys >> PAGE_SHIFT] & PAGE_DIRECT_MASK) != PAGE_DIRECT)
			return false;
	return true;
}

static void go_ahead(struct cpu *c)
{
	struct machine *m = c->machine;
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		uint8_t *host = m->memory.ram + e->phys;
		c->store_behind[c->store_first + i] = bytes_load_any(host, (uint32_t)e->size);
		bytes_store_any(host, (uint32_t)e->size, e->value);
	}
	c->ahead = true;
	c->ahead_filter = m->tap.on;
	if (!c->ahead_filter)
		c->store_filter = 0;
	c->ahead_slots = STORE_BUFFER_SLOTS;
	c->ahead_capacity = m->store_capacity;
}

void store_buffer_run_ahead(struct cpu *c)
{
	const struct machine *m = c->machine;
	if (!c->ahead) {
		if (!may_run_ahead(c))
			return;
		go_ahead(c);
	}
	c->ahead_end = m->makes_room ? (int64_t)m->chain_end : 0;
}

void store_buffer_fall_back(struct cpu *c)
{
	assert(c->ahead);
	for (uint32_t i = c->s.store_count; i--;) {
		const struct store_entry *e = store_buffer_entry(c, i);
		bytes_store_any(c->machine->memory.ram + e->phys, (uint32_t)e->size, c->store_behind[c->store_first + i]);
	}
	if (!c->ahead_filter && c->s.store_count)
		c->store_filter = ~UINT64_C(0); /* whoever asks will find out */
	c->ahead = false;
	c->ahead_slots = 0;
}

void store_buffer_push(struct cpu *c, uint64_t addr, uint64_t phys, uint32_t size, uint64_t value)
{
	assert(c->s.store_count < STORE_BUFFER_SLOTS);
	assert(size >= 1 && size <= 8 && !c->ahead);
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
	visible_drain(m, entry);
	if (pool_freed(m, entry->phys))
		pool_drain(c, entry);
	if (!c->ahead)
		memory_write_small(m, entry->phys, entry->value, (uint32_t)entry->size);
	c->store_first++;
	if (--c->s.store_count)
		return;
	c->store_first = 0;
	c->store_filter = 0;
	c->stores_in_code = false;
	if (c->hold)
		return;
	c->ahead = false;
	c->ahead_slots = 0;
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

uint32_t store_buffer_look(const struct cpu *c, uint64_t phys, uint32_t size)
{
	uint32_t covered = 0; /* one bit a byte */
	for (uint32_t i = c->s.store_count; i--;) {
		const struct store_entry *e = store_buffer_entry(c, i);
		if (e->phys >= phys + size || phys >= e->phys + e->size)
			continue;
		if (e->phys <= phys && phys + size <= e->phys + e->size)
			return EVENT_FORWARDED;
		for (uint32_t byte = 0; byte < size; byte++)
			covered |= (uint32_t)(phys + byte - e->phys < e->size) << byte;
	}
	return covered == (1u << size) - 1 ? EVENT_FORWARDED : covered ? EVENT_MERGED : 0;
}

uint64_t store_buffer_read(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info)
{
	assert(!c->ahead);
	uint64_t value;
	if (forward_whole(c, phys, size, &value)) {
		*info |= EVENT_FORWARDED;
		return value;
	}
	value = bytes_load_any(c->machine->memory.ram + phys, size);
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
