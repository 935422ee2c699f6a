#include "tap.h"

#include <stdlib.h>

void tap_deinit(struct tap *tap)
{
	free(tap->step);
	free(tap->kind);
	*tap = (struct tap){0};
}

bool tap_set_capacity(struct tap *tap, uint32_t event_count)
{
	size_t allocated = (size_t)event_count + EVENTS_PER_STEP_MAX;
	uint64_t *wide = malloc(5 * allocated * sizeof(uint64_t));
	uint8_t *narrow = malloc(4 * allocated);
	if (!wide || !narrow) {
		free(wide);
		free(narrow);
		return false;
	}
	bool on = tap->on;
	tap_deinit(tap);
	tap->on = on;
	tap->capacity = event_count;
	tap->allocated = (uint32_t)allocated;
	tap->step = wide;
	tap->pc = wide + allocated;
	tap->addr = wide + 2 * allocated;
	tap->phys = wide + 3 * allocated;
	tap->value = wide + 4 * allocated;
	tap->kind = narrow;
	tap->cpu = narrow + allocated;
	tap->size = narrow + 2 * allocated;
	tap->info = narrow + 3 * allocated;
	return true;
}

void tap_append(struct machine *m, uint32_t cpu, uint64_t pc, enum event_kind kind, uint64_t addr, uint64_t phys,
		uint64_t value, uint32_t size, uint32_t info)
{
	struct tap *tap = &m->tap;
	uint32_t i = tap->count;
	/* Execution stops at capacity, and no step makes more than EVENTS_PER_STEP_MAX events. */
	assert(i < tap->allocated);
	tap->step[i] = m->step;
	tap->pc[i] = pc;
	tap->addr[i] = addr;
	tap->phys[i] = phys;
	tap->value[i] = value;
	tap->kind[i] = (uint8_t)kind;
	tap->cpu[i] = (uint8_t)cpu;
	tap->size[i] = (uint8_t)size;
	tap->info[i] = (uint8_t)info;
	tap->count = i + 1;
}
