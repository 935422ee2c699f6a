/* The event tap: what happened. Schema: event.def. */
#ifndef RACETAPE_TAP_H
#define RACETAPE_TAP_H

#include "machine.h"

enum event_kind {
#define EVENT(number, name, doc) EVENT_##name = number,
#include "event.def"
#undef EVENT
};

enum event_info {
	EVENT_FORWARDED = 1,
	EVENT_MERGED = 2,
	EVENT_LOCKED = 4,
	EVENT_DRAINED = 8,
	EVENT_DEVICE = 16,
	EVENT_IMPLICIT = 32,
};

/* Memory for rows, of the tap and of everybody who still reads them after the tap has let them go. */
struct event_block {
	uint32_t references;
	uint32_t allocated;
	_Alignas(16) struct event rows[]; /* or more of them would lie across cache lines */
};

/* Returns false if memory is short; all then stays as it is. Else drops unread events. */
bool tap_set_capacity(struct tap *tap, uint32_t event_count);
/* Lets go of the rows, which are the caller's to release, and goes on with others. Returns NULL if memory is short. */
struct event_block *tap_take(struct tap *tap);
/* Drops a reference to a block that was this tap's. Whoever runs the machine need not stop for it, but two may not call it
 * at once. */
void tap_release(struct tap *tap, struct event_block *block);
void tap_deinit(struct tap *tap);
void tap_switch(struct tap *tap, bool on);
enum { TAP_ROWS_AHEAD = 64 };

/* The next row, to be filled. Rows were last in the cache of whoever read them: to ask for them early saves a twentieth
 * of recording; the processor itself does not look beyond a page. */
ALWAYS_INLINE struct event *tap_row(struct tap *tap)
{
	/* No chain begins once it is full, none makes more than CHAIN_EVENT_MAX events, nor does a step by itself make more
	 * than EVENTS_PER_STEP_MAX. */
	assert(tap->next < tap->end);
	/* An integer, for it may lie behind the block. */
	__builtin_prefetch((const void *)((uintptr_t)tap->next + TAP_ROWS_AHEAD * sizeof(*tap->next)), 1);
	return tap->next++;
}

static inline uint32_t tap_count(const struct tap *tap)
{
	return (uint32_t)(tap->next - tap->block->rows);
}

/* Forgets the events that are there. */
static inline void tap_clear(struct tap *tap)
{
	tap->next = tap->block->rows;
}

/* Inline: a call here costs a tenth of the recording speed. */
ALWAYS_INLINE void tap_append(struct machine *m, uint32_t cpu, uint64_t step, uint64_t pc, enum event_kind kind, uint64_t addr, uint64_t phys,
		uint64_t value, uint32_t size, uint32_t info)
{
	struct tap *tap = &m->tap;
	struct event *row = tap_row(tap);
	row->step = step;
	row->pc = pc;
	row->addr = addr;
	row->phys = phys;
	row->value = value;
	row->kind = (uint8_t)kind;
	row->cpu = (uint8_t)cpu;
	row->size = (uint8_t)size;
	row->info = (uint8_t)info;
}

ALWAYS_INLINE void tap_event(struct cpu *c, enum event_kind kind, uint64_t addr, uint64_t phys, uint64_t value,
			     uint32_t size, uint32_t info)
{
	if (unlikely(c->machine->tap.on))
		tap_append(c->machine, c->number, c->machine->step, c->pc, kind, addr, phys, value, size, info);
}

ALWAYS_INLINE bool tap_full(const struct tap *tap)
{
	return tap->next >= tap->full;
}

#endif
