#include "tap.h"

#include <stdlib.h>

#include "chain.h"

static struct event_block *block_create(uint32_t allocated)
{
	struct event_block *block = malloc(sizeof(*block) + (size_t)allocated * sizeof(block->rows[0]));
	if (block)
		*block = (struct event_block){.references = 1, .allocated = allocated};
	return block;
}

static void use_block(struct tap *tap, struct event_block *block)
{
	tap->block = block;
	tap->end = block->rows + block->allocated;
	tap_clear(tap);
	tap_switch(tap, tap->on);
}

void tap_release(struct tap *tap, struct event_block *block)
{
	assert(block->references > 0);
	if (--block->references)
		return;
	if (block->allocated == tap->allocated && tap->spare_count < TAP_SPARE_MAX)
		tap->spare[tap->spare_count++] = block;
	else
		free(block);
}

void tap_deinit(struct tap *tap)
{
	while (tap->spare_count)
		free(tap->spare[--tap->spare_count]);
	tap->allocated = 0; /* so that the block is freed, too */
	if (tap->block)
		tap_release(tap, tap->block);
	*tap = (struct tap){0};
}

bool tap_set_capacity(struct tap *tap, uint32_t event_count)
{
	uint32_t allocated = event_count + CHAIN_EVENT_MAX + EVENTS_PER_STEP_MAX;
	if (tap->allocated == allocated) {
		tap_clear(tap);
		return true;
	}
	struct event_block *block = block_create(allocated);
	if (!block)
		return false;
	bool on = tap->on;
	tap_deinit(tap);
	tap->on = on;
	tap->capacity = event_count;
	tap->allocated = allocated;
	use_block(tap, block);
	return true;
}

struct event_block *tap_take(struct tap *tap)
{
	struct event_block *full = tap->block, *fresh;
	if (tap->spare_count)
		fresh = tap->spare[--tap->spare_count];
	else
		fresh = block_create(tap->allocated);
	if (!fresh)
		return NULL;
	fresh->references = 1;
	use_block(tap, fresh);
	return full;
}

void tap_switch(struct tap *tap, bool on)
{
	tap->on = on;
	tap->full = on ? tap->block->rows + tap->capacity : tap->end;
}
