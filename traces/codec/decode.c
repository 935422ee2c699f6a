#include "codec.h"

#include <stdlib.h>

#include "predict.h"

enum {
	SLACK = 16, /* zero bytes behind the streams, so that eight can be read where fewer are meant */
	RECENT_MASK = 15,
};
static_assert(RECENT_MASK + 1 > RECENT_COUNT, "the ring holds all that is looked back at");

/* Streams may claim anything. Reading beyond the end of one sets `damaged` and gives zeros. */
struct decoder {
	struct predictor predictor;
	uint64_t recent[RECENT_MASK + 1]; /* address and value by turns of the events before */
	uint32_t turn;			  /* where the next event's pair goes, even, counted without end */
	const uint8_t *at[STREAM_COUNT], *end[STREAM_COUNT];
	bool damaged;
	const struct columns *out;
};

static const uint8_t *take(struct decoder *d, int stream, size_t size)
{
	const uint8_t *from = d->at[stream];
	if ((size_t)(d->end[stream] - from) < size) {
		d->damaged = true;
		static const uint8_t nothing[8] = {0};
		assert(size <= sizeof(nothing));
		return nothing;
	}
	d->at[stream] = from + size;
	return from;
}

static uint64_t take_bytes(struct decoder *d, int stream, uint32_t length)
{
	if (length == 0)
		return 0;
	uint64_t x;
	/* Eight bytes are there: behind the streams comes slack, and take's zeros are eight. */
	memcpy(&x, take(d, stream, length), sizeof(x));
	return x & (UINT64_MAX >> (64 - 8 * length));
}

static uint8_t take_control(struct decoder *d)
{
	return *take(d, STREAM_CONTROL, 1);
}

static uint64_t take_number(struct decoder *d)
{
	uint32_t length = *take(d, STREAM_SITE, 1);
	if (length > LENGTH_MAX) {
		d->damaged = true;
		return 0;
	}
	return take_bytes(d, STREAM_SITE, length);
}

ALWAYS_INLINE const uint64_t *recent(const struct decoder *d, uint32_t number)
{
	return &d->recent[(d->turn - number) & RECENT_MASK];
}

ALWAYS_INLINE uint64_t expected_addr(const struct decoder *d, const struct site *s)
{
	const uint64_t *base = s->addr_base == BASE_OWN ? &s->addr : recent(d, s->addr_base);
	return *base + s->addr_plus;
}

ALWAYS_INLINE uint64_t expected_value(const struct decoder *d, const struct site *s, const uint64_t *cell)
{
	const uint64_t *base = recent(d, s->value_base);
	if (s->value_base == BASE_CELL)
		base = cell;
	if (s->value_base == BASE_OWN_VALUE)
		base = &s->value;
	return *base + s->value_plus;
}

static __attribute__((noinline)) void learn(const struct decoder *d, struct site *s, bool learns_addr, uint64_t addr, bool learns_value,
					    uint64_t value, uint64_t cell)
{
	uint64_t numbered[RECENT_COUNT];
	for (uint32_t i = 0; i < RECENT_COUNT; i++)
		numbered[i] = *recent(d, i + 1);
	if (learns_addr) {
		struct guess best = learn_addr(numbered, s, addr);
		s->addr_base = (uint8_t)best.base;
		s->addr_plus = best.off;
	}
	if (learns_value) {
		struct guess best = learn_value(numbered, s, value, cell);
		s->value_base = (uint8_t)best.base;
		s->value_plus = best.off;
	}
}

ALWAYS_INLINE void add_event(struct decoder *d, size_t i, uint64_t step, struct site *site, uint64_t addr, uint64_t value, uint64_t *cell)
{
	note_event(site, addr, value, cell);
	d->recent[d->turn++ & RECENT_MASK] = addr;
	d->recent[d->turn++ & RECENT_MASK] = value;
	const struct columns *out = d->out;
	out->wide[0][i] = step;
	out->wide[1][i] = site->pc;
	out->wide[2][i] = addr;
	out->wide[3][i] = addr + site->distance;
	out->wide[4][i] = value;
	for (int k = 0; k < NARROW_COUNT; k++)
		out->narrow[k][i] = (uint8_t)(site->meta >> 8 * k);
}

/* The site after `site` that `code` names; `steps` gets how much later. */
static struct site *take_site(struct decoder *d, struct site *site, uint8_t code, uint64_t *steps)
{
	struct predictor *p = &d->predictor;
	struct site *next;
	if (code == CODE_SECOND) {
		next = &p->sites[site->next[1]];
		*steps = site->steps[1];
	} else {
		if (code == CODE_KNOWN) {
			next = &p->sites[take_bytes(d, STREAM_SITE, 2) % SITE_COUNT];
		} else {
			uint64_t pc = site->pc + unzigzag(take_number(d));
			uint32_t meta = (uint32_t)take_number(d);
			bool known;
			next = find_site(p, pc, meta, &known);
			start_site(next, pc, meta);
		}
		*steps = take_number(d);
	}
	learn_next(p, site, next, *steps);
	return next;
}

ALWAYS_INLINE struct site *take_event(struct decoder *d, struct site *site, size_t i, uint64_t *step, enum codec codec)
{
	struct predictor *p = &d->predictor;
	struct site *next = &p->sites[site->next[0]];
	uint64_t steps = site->steps[0];
	uint8_t code = take_control(d);
	if (code == CODE_SECOND || code == CODE_KNOWN || code == CODE_NEW) {
		next = take_site(d, site, code, &steps);
		code = take_control(d);
	}
	uint8_t place = code;
	if (place == CODE_PAGE || place == CODE_DISTANCE)
		code = take_control(d);
	uint32_t addr_length = code & 15, value_length = code >> 4;
	if (addr_length > LENGTH_MAX || value_length > LENGTH_MAX) {
		d->damaged = true;
		return next;
	}
	uint64_t addr = expected_addr(d, next) + unzigzag(take_bytes(d, STREAM_ADDR, addr_length));
	if (place == CODE_PAGE)
		next->distance = *distance_of(p, addr);
	if (place == CODE_DISTANCE)
		next->distance = *distance_of(p, addr) = unzigzag(take_number(d));
	uint64_t *cell = cell_of(p, addr + next->distance, codec);
	uint64_t value = expected_value(d, next, cell) + unzigzag(take_bytes(d, STREAM_VALUE, value_length));
	bool learns_addr = addr_length, learns_value = value_length;
	if (codec != CODEC_3) {
		count_guess(&next->addr_streak, addr_length);
		count_guess(&next->value_streak, value_length);
		learns_addr = learns_after(next->addr_streak);
		learns_value = learns_after(next->value_streak);
	}
	if (learns_addr | learns_value)
		learn(d, next, learns_addr, addr, learns_value, value, *cell);
	*step += steps;
	add_event(d, i, *step, next, addr, value, cell);
	return next;
}

ALWAYS_INLINE void take_events(struct decoder *d, size_t count, bool prefix, enum codec codec)
{
	struct predictor *p = &d->predictor;
	struct site *site = p->sites;
	uint64_t step = 0;
	size_t i = 0;
	for (;;) {
		uint8_t run = take_control(d);
		if (prefix && run > count - i)
			run = (uint8_t)(count - i);
		if (d->damaged || run > count - i) {
			d->damaged = true;
			return;
		}
		for (size_t end = i + run; i < end; i++) {
			struct site *next = &p->sites[site->next[0]];
			uint64_t addr = expected_addr(d, next);
			uint64_t *cell = cell_of(p, addr + next->distance, codec);
			uint64_t value = expected_value(d, next, cell);
			step += site->steps[0];
			next->addr_streak = next->value_streak = 0;
			add_event(d, i, step, next, addr, value, cell);
			site = next;
		}
		if (prefix && i == count)
			return;
		if (run == RUN_MAX)
			continue;
		if (i == count)
			return;
		site = take_event(d, site, i++, &step, codec);
	}
}

enum decode_status decode_events(enum codec codec, const uint8_t *coded, const uint32_t stream_bytes[STREAM_COUNT], size_t count,
				 bool prefix, const struct columns *out)
{
	assert(count <= CODEC_EVENTS_MAX);
	size_t total = 0;
	for (int i = 0; i < STREAM_COUNT; i++)
		total += stream_bytes[i];
	struct decoder *d = calloc(1, sizeof(*d));
	uint8_t *copy = malloc(total + SLACK);
	enum decode_status status = DECODE_NO_MEMORY;
	if (d && copy) {
		memcpy(copy, coded, total);
		memset(copy + total, 0, SLACK);
		const uint8_t *at = copy;
		static const int order[STREAM_COUNT] = {STREAM_CONTROL, STREAM_ADDR, STREAM_SITE, STREAM_VALUE};
		static const int order_3[STREAM_COUNT] = {STREAM_CONTROL, STREAM_ADDR, STREAM_VALUE, STREAM_SITE};
		for (int i = 0; i < STREAM_COUNT; i++) {
			int stream = (codec == CODEC_3 ? order_3 : order)[i];
			d->at[stream] = at;
			d->end[stream] = at += stream_bytes[i];
		}
		d->out = out;
		/* Each a copy of its own. */
		if (codec == CODEC_3)
			take_events(d, count, prefix, CODEC_3);
		else
			take_events(d, count, prefix, CODEC_4);
		for (int i = 0; i < STREAM_COUNT && !prefix; i++)
			d->damaged |= d->at[i] != d->end[i];
		status = d->damaged ? DECODE_DAMAGED : DECODE_OK;
	}
	free(copy);
	free(d);
	return status;
}
