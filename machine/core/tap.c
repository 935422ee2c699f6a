#include "tap.h"

#include <stdlib.h>

#include "chain.h"

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
	tap_switch(tap, on);
	return true;
}

void tap_switch(struct tap *tap, bool on)
{
	tap->on = on;
	tap->chain_max = on ? (int64_t)tap->capacity - CHAIN_EVENT_MAX : UINT32_MAX;
}
