#include "tap.h"

#include <stdlib.h>

#include "chain.h"

void tap_deinit(struct tap *tap)
{
	free(tap->rows);
	*tap = (struct tap){0};
}

bool tap_set_capacity(struct tap *tap, uint32_t event_count)
{
	size_t allocated = (size_t)event_count + EVENTS_PER_STEP_MAX;
	struct event *rows = malloc(allocated * sizeof(*rows));
	if (!rows)
		return false;
	bool on = tap->on;
	tap_deinit(tap);
	tap->capacity = event_count;
	tap->allocated = (uint32_t)allocated;
	tap->rows = rows;
	tap_switch(tap, on);
	return true;
}

void tap_switch(struct tap *tap, bool on)
{
	tap->on = on;
	tap->chain_max = on ? (int64_t)tap->capacity - CHAIN_EVENT_MAX : UINT32_MAX;
}
