#include "codec.h"

#include <stdlib.h>

#include "predict.h"

enum {
	/* Most bytes that one event puts into each stream, and room to write eight bytes where fewer are meant. */
	CONTROL_EVENT_MAX = 4,
	RESIDUE_MAX = 8,
	SITE_EVENT_MAX = 4 * 9,
	SLACK = 16,
};

static size_t stream_room(size_t count, int stream)
{
	static const size_t event_max[STREAM_COUNT] = {CONTROL_EVENT_MAX, RESIDUE_MAX, RESIDUE_MAX, SITE_EVENT_MAX};
	size_t runs = stream == STREAM_CONTROL ? count / RUN_MAX + 1 : 0;
	return count * event_max[stream] + runs + SLACK;
}

size_t encoded_bytes_max(size_t count)
{
	size_t total = 0;
	for (int i = 0; i < STREAM_COUNT; i++)
		total += stream_room(count, i);
	return total;
}

ALWAYS_INLINE uint32_t length_of(uint64_t x)
{
	return (64 + 7 - (uint32_t)__builtin_clzll(x | 1)) / 8 - !x;
}

ALWAYS_INLINE uint8_t *put_residue(uint8_t *to, uint64_t x, uint32_t length)
{
	memcpy(to, &x, sizeof(x));
	return to + length;
}

static uint8_t *put_number(uint8_t *to, uint64_t x)
{
	uint32_t length = length_of(x);
	*to++ = (uint8_t)length;
	return put_residue(to, x, length);
}

static uint8_t *put_run(uint8_t *to, size_t run)
{
	for (; run >= RUN_MAX; run -= RUN_MAX)
		*to++ = RUN_MAX;
	*to++ = (uint8_t)run;
	return to;
}

struct encoder {
	struct predictor predictor;
	uint8_t *at[STREAM_COUNT];
};

/* Says which site comes after `site`, other than expected. */
static struct site *put_site(struct encoder *e, struct site *site, const struct row *row, uint64_t steps)
{
	struct predictor *p = &e->predictor;
	struct site *next = &p->sites[site->next[1]];
	if (next->pc == row->pc && next->meta == row->meta && site->steps[1] == steps) {
		*e->at[STREAM_CONTROL]++ = CODE_SECOND;
	} else {
		uint8_t *to = e->at[STREAM_SITE];
		next = find_site(p, row->pc, row->meta);
		if (next->used && next->pc == row->pc && next->meta == row->meta) {
			*e->at[STREAM_CONTROL]++ = CODE_KNOWN;
			uint16_t slot = (uint16_t)(next - p->sites);
			memcpy(to, &slot, sizeof(slot));
			to += sizeof(slot);
		} else {
			*e->at[STREAM_CONTROL]++ = CODE_NEW;
			to = put_number(to, zigzag(row->pc - site->pc));
			to = put_number(to, row->meta);
			start_site(next, row->pc, row->meta);
		}
		e->at[STREAM_SITE] = put_number(to, steps);
	}
	learn_next(p, site, next, steps);
	return next;
}

/* An event that was not expected, at least not all of it. Returns its site. */
static __attribute__((noinline)) struct site *put_event(struct encoder *e, struct site *site, const struct row *row, uint64_t steps)
{
	struct predictor *p = &e->predictor;
	struct site *next = &p->sites[site->next[0]];
	if (next->pc != row->pc || next->meta != row->meta || site->steps[0] != steps)
		next = put_site(e, site, row, steps);

	uint64_t distance = row->phys - row->addr;
	if (next->distance != distance) {
		uint64_t *of_page = distance_of(p, row->addr);
		if (*of_page == distance) {
			*e->at[STREAM_CONTROL]++ = CODE_PAGE;
		} else {
			*e->at[STREAM_CONTROL]++ = CODE_DISTANCE;
			e->at[STREAM_SITE] = put_number(e->at[STREAM_SITE], zigzag(distance));
			*of_page = distance;
		}
		next->distance = distance;
	}

	uint64_t *cell = cell_of(p, row->phys);
	uint64_t addr = zigzag(row->addr - expected_addr(p, next));
	uint64_t value = zigzag(row->value - expected_value(p, next, cell));
	uint32_t addr_length = length_of(addr), value_length = length_of(value);
	*e->at[STREAM_CONTROL]++ = (uint8_t)(addr_length | value_length << 4);
	if (addr) {
		e->at[STREAM_ADDR] = put_residue(e->at[STREAM_ADDR], addr, addr_length);
		learn_addr(p, next, row->addr);
	}
	if (value) {
		e->at[STREAM_VALUE] = put_residue(e->at[STREAM_VALUE], value, value_length);
		learn_value(p, next, row->value, cell);
	}
	note_event(p, next, row->addr, row->value, cell);
	return next;
}

static void put_events(struct encoder *e, const struct row *rows, size_t count)
{
	struct predictor *p = &e->predictor;
	struct site *site = p->sites;
	uint64_t step = 0;
	const struct row *run = rows, *end = rows + count;
	for (const struct row *row = rows; row < end; row++) {
		struct site *next = &p->sites[site->next[0]];
		uint64_t *cell = cell_of(p, row->phys);
		/* One test for all: guesses are mostly right as a whole, and each test of its own costs when it is not. */
		uint64_t wrong = (next->pc ^ row->pc) | (next->meta ^ row->meta) | ((step + site->steps[0]) ^ row->step) |
				 (expected_addr(p, next) ^ row->addr) | ((row->addr + next->distance) ^ row->phys) |
				 (expected_value(p, next, cell) ^ row->value);
		if (likely(!wrong)) {
			note_event(p, next, row->addr, row->value, cell);
			site = next;
		} else {
			e->at[STREAM_CONTROL] = put_run(e->at[STREAM_CONTROL], (size_t)(row - run));
			site = put_event(e, site, row, row->step - step);
			run = row + 1;
		}
		step = row->step;
	}
	e->at[STREAM_CONTROL] = put_run(e->at[STREAM_CONTROL], (size_t)(end - run));
}

bool encode_events(const struct row *rows, size_t count, uint8_t *coded, uint32_t stream_bytes[STREAM_COUNT])
{
	assert(count <= CODEC_EVENTS_MAX);
	struct encoder *e = calloc(1, sizeof(*e));
	if (!e)
		return false;
	uint8_t *starts[STREAM_COUNT], *to = coded;
	for (int i = 0; i < STREAM_COUNT; i++) {
		starts[i] = e->at[i] = to;
		to += stream_room(count, i);
	}
	put_events(e, rows, count);
	to = coded;
	for (int i = 0; i < STREAM_COUNT; i++) {
		size_t size = (size_t)(e->at[i] - starts[i]);
		assert(size + SLACK / 2 <= stream_room(count, i));
		memmove(to, starts[i], size);
		to += size;
		stream_bytes[i] = (uint32_t)size;
	}
	free(e);
	return true;
}
