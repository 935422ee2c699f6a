#include "visible.h"

#include <stdlib.h>
#include <string.h>

#include "access.h"
#include "classes.h"
#include "memory.h"
#include "mmu.h"
#include "store_buffer.h"

enum { WORD_SHIFT = 2, PAGE_WORDS = PAGE_SIZE >> WORD_SHIFT };

void visible_deinit(struct machine *m)
{
	for (int i = 0; i < SHARED_COUNT; i++) {
		free(m->watch.sets[i].words);
		free(m->watch.sets[i].pages);
	}
	classes_deinit(&m->classes);
	m->watch = (struct watch){0};
}

void visible_switch(struct machine *m, const struct shared *set)
{
	if (m->watch.set == set)
		return;
	m->watch.set = set;
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fast_flush(&m->cpus[i]);
}

bool visible_set(struct machine *m, enum shared_scope scope, const uint8_t *words)
{
	struct shared *s = &m->watch.sets[scope];
	visible_switch(m, NULL);
	m->watch.changes[scope]++;
	free(s->words);
	free(s->pages);
	*s = (struct shared){0};
	if (!words)
		return true;
	size_t size = (size_t)m->memory.page_count * PAGE_WORDS / 8;
	s->words = malloc(size);
	s->pages = malloc(m->memory.page_count);
	if (!s->words || !s->pages || (!m->classes.words && !classes_init(&m->classes))) {
		free(s->words);
		free(s->pages);
		*s = (struct shared){0};
		return false;
	}
	memcpy(s->words, words, size);
	for (uint32_t page = 0; page < m->memory.page_count; page++) {
		s->pages[page] = 0;
		for (uint32_t i = 0; i < PAGE_WORDS / 8; i++)
			s->pages[page] |= words[page * (PAGE_WORDS / 8) + i];
	}
	return true;
}

bool visible_contains(const struct machine *m, uint64_t phys, uint64_t size)
{
	for (uint64_t word = phys >> WORD_SHIFT; word <= (phys + size - 1) >> WORD_SHIFT; word++)
		if (m->watch.set->words[word >> 3] >> (word & 7) & 1)
			return true;
	return false;
}

static bool meet(struct watch *w, struct visible_note note, bool asks)
{
	if (asks && !w->stopped) {
		w->stopped = true;
		w->stopped_at = note;
	}
	/* What is touched beyond the room is not forgotten: the last note grows to hold it, which errs on the safe side. */
	if (w->count < VISIBLE_NOTES_MAX) {
		w->notes[w->count++] = note;
	} else {
		struct visible_note *last = &w->notes[VISIBLE_NOTES_MAX - 1];
		uint64_t end = note.phys + note.size > last->phys + last->size ? note.phys + note.size : last->phys + last->size;
		last->phys = note.phys < last->phys ? note.phys : last->phys;
		last->size = end - last->phys;
		last->writes |= note.writes;
		last->locked &= note.locked;
		last->forwarded = 0;
	}
	return asks;
}

/* See struct visible_note. What several stores make up together is taken for a load from memory. */
static uint32_t forwarded_from(const struct cpu *c, uint64_t phys, uint32_t size)
{
	uint32_t ahead = 0, found = 0;
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		ahead += visible_contains(c->machine, e->phys, e->size);
		if (e->phys < phys + size && phys < e->phys + e->size)
			found = e->phys <= phys && phys + size <= e->phys + e->size ? ahead : 0;
	}
	return found;
}

bool visible_access(struct cpu *c, uint64_t phys, uint32_t size, bool writes, uint32_t info)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	if (likely(!w->set))
		return false;
	struct visible_note note = {.phys = phys, .size = size, .writes = writes, .locked = info & EVENT_LOCKED};
	bool ram = memory_contains(&m->memory, phys, size);
	if (ram && !visible_contains(m, phys, size))
		return false;
	if (!ram)
		note.writes = true; /* a device: other CPUs may be told something */
	else if (!writes && c->s.store_count)
		note.forwarded = forwarded_from(c, phys, size);
	m->agents.overlooked |= w->settling && !w->asks;
	return meet(w, note, w->asks);
}

bool visible_flush(struct cpu *c)
{
	struct machine *m = c->machine;
	if (likely(!m->watch.asks))
		return false;
	const struct store_entry *e = store_buffer_entry(c, 0);
	return meet(&m->watch, (struct visible_note){.phys = e->phys, .size = e->size, .writes = true}, true);
}

bool visible_room(struct cpu *c, uint32_t count)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	if (likely(!w->asks) || !c->buffered || c->s.store_count + count <= m->store_capacity)
		return false;
	uint32_t drains = c->s.store_count + count - m->store_capacity;
	for (uint32_t i = 0; i < drains && i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		if (!visible_contains(m, e->phys, e->size))
			continue;
		w->needs_room = true;
		return meet(w, (struct visible_note){.phys = e->phys, .size = e->size, .writes = true}, true);
	}
	return false;
}

void visible_drain(struct machine *m, const struct store_entry *entry)
{
	struct watch *w = &m->watch;
	if (likely(!w->set) || !visible_contains(m, entry->phys, entry->size))
		return;
	if (w->settling) {
		m->agents.overlooked = true;
		return;
	}
	meet(w, (struct visible_note){.phys = entry->phys, .size = entry->size, .writes = true}, false);
	w->drained++;
}

void visible_unequal(struct cpu *c)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	for (uint32_t i = 0; w->set && i < w->count; i++)
		if (w->notes[i].locked && memory_contains(&m->memory, w->notes[i].phys, w->notes[i].size))
			w->notes[i].writes = false;
}

bool visible_end(struct cpu *c, uint32_t port)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	if (likely(!w->set))
		return false;
	m->agents.overlooked |= w->settling && !w->asks;
	return meet(w, (struct visible_note){.phys = VISIBLE_PORT | port, .size = 1, .writes = true}, w->asks);
}

void visible_clock(struct machine *m)
{
	m->clock_read = m->step;
	m->agents.overlooked |= m->watch.set != NULL;
}

void visible_save(struct cpu *c, struct tlb_entry *entry, uint64_t phys, uint32_t size)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	if (likely(!w->asks))
		return;
	if (w->undo_step != m->step) {
		w->undo_step = m->step;
		w->undo_count = 0;
	}
	if (w->undo_count == VISIBLE_UNDO_MAX) {
		m->agents.overlooked = true;
		return;
	}
	struct visible_undo *undo = &w->undo[w->undo_count++];
	*undo = (struct visible_undo){.entry = entry, .phys = phys, .size = size};
	if (entry)
		undo->before = *entry;
	else
		undo->value = bytes_load_any(m->memory.ram + phys, size);
}

void visible_commit(struct cpu *c)
{
	struct machine *m = c->machine;
	if (likely(!m->watch.asks))
		return;
	m->watch.asks = false;
	m->run_end = m->step + 1;
}

void visible_save_stores(struct cpu *c)
{
	struct watch *w = &c->machine->watch;
	if (w->stores_step == c->machine->step)
		return;
	w->stores_step = c->machine->step;
	w->stores = c->s.store_count;
}

void visible_save_memory(struct cpu *c, uint64_t addr, uint32_t size)
{
	struct machine *m = c->machine;
	uint64_t phys;
	if (likely(!m->watch.asks) || c->buffered)
		return;
	for (uint32_t at = 0, part; at < size; at += part) {
		uint32_t left = PAGE_SIZE - (uint32_t)((addr + at) & (PAGE_SIZE - 1));
		part = size - at < left ? size - at : left;
		if (mmu_peek_cached(c, (addr + at) & c->linear_mask, &phys) && memory_contains(&m->memory, phys, part))
			visible_save(c, NULL, phys, part);
	}
}

void visible_save_partial(struct cpu *c)
{
	struct watch *w = &c->machine->watch;
	w->partial_count = c->s.partial_count;
	memcpy(w->partial, c->s.partial, sizeof(w->partial));
}

static void undo_stores(struct cpu *c)
{
	c->s.store_count = c->machine->watch.stores;
	if (!c->s.store_count) {
		c->store_first = 0;
		c->stores_in_code = false;
	}
	store_buffer_update_filter(c);
	cpu_update_fast(c);
}

void visible_undo(struct cpu *c, uint64_t step)
{
	struct machine *m = c->machine;
	struct watch *w = &m->watch;
	if (w->stores_step == m->step && c->s.store_count > w->stores)
		undo_stores(c);
	if (m->pool.use.access && m->pool.use.step == m->step)
		m->pool.use = (struct pool_use){0}; /* of an instruction that did not happen */
	partial_forget(c);
	if (m->step == step && w->partial_count) {
		memcpy(c->s.partial, w->partial, sizeof(w->partial));
		c->s.partial_count = w->partial_count;
	}
	if (!w->undo_count || w->undo_step != m->step)
		return;
	while (w->undo_count) {
		const struct visible_undo *undo = &w->undo[--w->undo_count];
		if (undo->entry)
			*undo->entry = undo->before;
		else
			memory_write(m, undo->phys, &undo->value, undo->size);
	}
	fast_flush(c);
}
