#include "codec.h"

#include <stdlib.h>

#include "index.h"
#include "predict.h"

enum {
	/* Most bytes that one event puts into each stream, and room to write eight bytes where fewer are meant. */
	CONTROL_EVENT_MAX = 4,
	RESIDUE_MAX = 8,
	SITE_EVENT_MAX = 4 * 9,
	SLACK = 16,
	ROWS_BACK = RECENT_COUNT / 2,
	ROWS_AHEAD = 80,
};

static size_t stream_room(size_t count, int stream)
{
	static const size_t event_max[STREAM_COUNT] = {CONTROL_EVENT_MAX, RESIDUE_MAX, SITE_EVENT_MAX, RESIDUE_MAX};
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
	struct site *site; /* of the latest event */
	size_t run;	   /* events as expected since the last other one */
	struct index_builder *index; /* or NULL */
	struct effect effects[SITE_COUNT];
};

static struct effect *effect_of_site(struct encoder *e, const struct site *site)
{
	return &e->effects[site - e->predictor.sites];
}

/* Says which site comes after `site`, other than expected. */
static struct site *put_site(struct encoder *e, struct site *site, const struct row *row, uint64_t steps)
{
	struct predictor *p = &e->predictor;
	struct site *next = &p->sites[site->next[1]];
	if (next->pc == row->pc && next->meta == row->meta && site->steps[1] == steps) {
		*e->at[STREAM_CONTROL]++ = CODE_SECOND;
	} else {
		uint8_t *to = e->at[STREAM_SITE];
		bool known;
		next = find_site(p, row->pc, row->meta, &known);
		if (known) {
			*e->at[STREAM_CONTROL]++ = CODE_KNOWN;
			uint16_t slot = (uint16_t)(next - p->sites);
			memcpy(to, &slot, sizeof(slot));
			to += sizeof(slot);
		} else {
			*e->at[STREAM_CONTROL]++ = CODE_NEW;
			to = put_number(to, zigzag(row->pc - site->pc));
			to = put_number(to, row->meta);
			if (e->index)
				index_site(e->index, effect_of_site(e, next), next->meta, row->pc, row->meta);
			start_site(next, row->pc, row->meta);
		}
		e->at[STREAM_SITE] = put_number(to, steps);
	}
	learn_next(p, site, next, steps);
	return next;
}

/* Says which site comes after `site`, and where its memory lies, one of them other than expected. */
static __attribute__((noinline)) struct site *put_origin(struct encoder *e, struct site *site, const struct row *row, uint64_t steps)
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
	return next;
}

/* Recent addresses and values stand in the rows before. Sites keep how many words back their base is, or: */
enum { BACK_OWN = 0, BACK_CELL = 0, BACK_OWN_VALUE = 255 };

/* Of the recent one with this number. */
ALWAYS_INLINE uint32_t words_back(uint32_t number)
{
	enum { ROW_WORDS = sizeof(struct row) / 8, ADDR = offsetof(struct row, addr) / 8, VALUE = offsetof(struct row, value) / 8 };
	return (number + 1) / 2 * ROW_WORDS - (number % 2 ? VALUE : ADDR);
}

ALWAYS_INLINE uint64_t word_back(const struct row *row, uint32_t words)
{
	uint64_t x;
	memcpy(&x, (const char *)row - (size_t)8 * words, sizeof(x));
	return x;
}

ALWAYS_INLINE uint64_t expected_addr(const struct site *s, const struct row *row)
{
	return (s->addr_base == BACK_OWN ? s->addr : word_back(row, s->addr_base)) + s->addr_plus;
}

ALWAYS_INLINE uint64_t expected_value(const struct site *s, const struct row *row, const uint64_t *cell)
{
	if (s->value_base == BACK_CELL)
		return *cell + s->value_plus;
	return (s->value_base == BACK_OWN_VALUE ? s->value : word_back(row, s->value_base)) + s->value_plus;
}

static __attribute__((noinline)) void learn(struct site *s, const struct row *row, bool learns_addr, bool learns_value, uint64_t cell)
{
	uint64_t recent[RECENT_COUNT];
	for (uint32_t i = 0; i < RECENT_COUNT; i++)
		recent[i] = word_back(row, words_back(i + 1));
	if (learns_addr) {
		struct guess best = learn_addr(recent, s, row->addr);
		s->addr_base = (uint8_t)(best.base == BASE_OWN ? BACK_OWN : words_back(best.base));
		s->addr_plus = best.off;
	}
	if (learns_value) {
		struct guess best = learn_value(recent, s, row->value, cell);
		s->value_plus = best.off;
		s->value_base = (uint8_t)words_back(best.base);
		if (best.base == BASE_CELL)
			s->value_base = BACK_CELL;
		if (best.base == BASE_OWN_VALUE)
			s->value_base = BACK_OWN_VALUE;
	}
}

/* An event that was not expected, at least not all of it. Returns its site. Few branches: they could not be foretold. */
ALWAYS_INLINE struct site *put_event(struct encoder *e, struct site *site, const struct row *row, uint64_t steps, bool same_origin)
{
	struct site *s = same_origin ? &e->predictor.sites[site->next[0]] : put_origin(e, site, row, steps);
	uint64_t *cell = cell_of(&e->predictor, row->phys, CODEC_4);
	uint64_t addr = zigzag(row->addr - expected_addr(s, row));
	uint64_t value = zigzag(row->value - expected_value(s, row, cell));
	uint32_t addr_length = length_of(addr), value_length = length_of(value);
	*e->at[STREAM_CONTROL]++ = (uint8_t)(addr_length | value_length << 4);
	e->at[STREAM_ADDR] = put_residue(e->at[STREAM_ADDR], addr, addr_length);
	e->at[STREAM_VALUE] = put_residue(e->at[STREAM_VALUE], value, value_length);
	count_guess(&s->addr_streak, addr);
	count_guess(&s->value_streak, value);
	bool learns_addr = learns_after(s->addr_streak), learns_value = learns_after(s->value_streak);
	if (unlikely(learns_addr | learns_value))
		learn(s, row, learns_addr, learns_value, *cell);
	note_event(s, row->addr, row->value, cell);
	return s;
}

/* Four rows must stand before the first, which is row `number` of the chunk. */
ALWAYS_INLINE void put_rows(struct encoder *e, const struct row *rows, size_t count, uint32_t number, struct index_builder *index)
{
	struct predictor *p = &e->predictor;
	struct site *site = e->site;
	uint64_t step = rows[-1].step;
	const struct row *run = rows - e->run, *end = rows + count;
	for (const struct row *row = rows; row < end; row++) {
		/* The processor itself does not look beyond a page. An integer, for it may lie behind the rows. */
		__builtin_prefetch((const void *)((uintptr_t)row + ROWS_AHEAD * sizeof(*row)));
		struct site *next = &p->sites[site->next[0]];
		bool same_origin = likely(next->pc == row->pc) && likely(next->meta == row->meta) &&
				   likely(step + site->steps[0] == row->step) && likely(row->addr + next->distance == row->phys);
		if (likely(same_origin)) {
			uint64_t *cell = cell_of(p, row->phys, CODEC_4);
			if (likely(expected_addr(next, row) == row->addr) && likely(expected_value(next, row, cell) == row->value)) {
				next->addr_streak = next->value_streak = 0;
				note_event(next, row->addr, row->value, cell);
				site = next;
				step = row->step;
				if (index)
					note_row(index, effect_of_site(e, site), row, number + (uint32_t)(row - rows));
				continue;
			}
		}
		e->at[STREAM_CONTROL] = put_run(e->at[STREAM_CONTROL], (size_t)(row - run));
		site = put_event(e, site, row, row->step - step, same_origin);
		if (index)
			note_row(index, effect_of_site(e, site), row, number + (uint32_t)(row - rows));
		run = row + 1;
		step = row->step;
	}
	e->site = site;
	e->run = (size_t)(end - run);
}

static void put_events(struct encoder *e, const struct row *rows, size_t count)
{
	/* The first rows again, behind the zeros from which they are foretold. */
	struct row start[2 * ROWS_BACK] = {0};
	size_t head = count < ROWS_BACK ? count : ROWS_BACK;
	memcpy(start + ROWS_BACK, rows, head * sizeof(*rows));
	put_rows(e, start + ROWS_BACK, head, 0, e->index);
	/* Each a copy of its own. */
	if (count > head && e->index)
		put_rows(e, rows + head, count - head, ROWS_BACK, e->index);
	else if (count > head)
		put_rows(e, rows + head, count - head, ROWS_BACK, NULL);
	e->at[STREAM_CONTROL] = put_run(e->at[STREAM_CONTROL], e->run);
}

/* What the sites' rows did goes to the index. */
static bool finish_index(struct encoder *e, struct index *index)
{
	for (size_t i = 0; i < SITE_COUNT; i++)
		e->index->kind_count[(uint8_t)e->predictor.sites[i].meta] += e->effects[i].count;
	return index_finish(e->index, &index->data, &index->size);
}

bool encode_events(const struct row *rows, size_t count, uint8_t *coded, uint32_t stream_bytes[STREAM_COUNT],
		   const struct index_rules *rules, struct index *index)
{
	assert(count <= CODEC_EVENTS_MAX);
	if (index)
		*index = (struct index){NULL, 0};
	struct encoder *e = calloc(1, sizeof(*e));
	if (!e)
		return false;
	e->index = rules ? index_new(rules) : NULL;
	bool done = !rules || e->index;
	if (done) {
		uint8_t *starts[STREAM_COUNT], *to = coded;
		for (int i = 0; i < STREAM_COUNT; i++) {
			starts[i] = e->at[i] = to;
			to += stream_room(count, i);
		}
		e->site = e->predictor.sites;
		put_events(e, rows, count);
		to = coded;
		for (int i = 0; i < STREAM_COUNT; i++) {
			size_t size = (size_t)(e->at[i] - starts[i]);
			assert(size + SLACK / 2 <= stream_room(count, i));
			memmove(to, starts[i], size);
			to += size;
			stream_bytes[i] = (uint32_t)size;
		}
		done = !e->index || finish_index(e, index);
	}
	index_free(e->index);
	free(e);
	return done;
}
