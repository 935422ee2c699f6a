/* What the coder and the decoder of events both expect next: docs/tape-format.md, section "Streams".
 *
 * Both sides start from zeros and learn the same things from the same events in the same order, so whatever one expects
 * the other does. Every index stays in range whatever was learned: nothing here can be led astray by a damaged tape.
 */
#ifndef RACETAPE_PREDICT_H
#define RACETAPE_PREDICT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "streams and rows are little endian"
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
	SITE_BITS = 12,
	SITE_COUNT = 1 << SITE_BITS,
	SITE_WAYS = 4, /* slots in which a site may stand */
	CELL_COUNT = 1 << 13,
	PAGE_BITS = 9,
	RECENT_DEPTH = 4, /* events looked back */
	RECENT_MASK = 15, /* of the ring of their addresses and values */
	BASE_OWN = 0,     /* of addresses: what the site itself had last */
	BASE_CELL = 0,    /* of values: what was last seen at that memory */
	BASE_OWN_VALUE = 2 * RECENT_DEPTH + 1,
};
static_assert(RECENT_MASK + 1 > 2 * RECENT_DEPTH, "the ring holds all that is looked back at");

/* Codes in the control stream. Up to LENGTH_MAX in both halves of the byte: lengths of the two residues. */
enum {
	RUN_MAX = 255,
	LENGTH_MAX = 8,
	CODE_PAGE = 9,      /* phys lies as it last did in this page */
	CODE_SECOND = 10,   /* the site that followed the time before */
	CODE_KNOWN = 11,    /* a site by its slot */
	CODE_NEW = 12,      /* a site not seen yet */
	CODE_DISTANCE = 13, /* phys - addr follows */
};

/* An origin of events: pc, kind, CPU, size and info. One cache line. */
struct site {
	uint64_t pc;
	uint32_t meta;     /* kind, cpu, size, info, from the low byte up */
	uint16_t next[2];  /* slots of the sites that followed, the latest first */
	uint16_t steps[2]; /* and how many steps later */
	uint8_t addr_base;
	uint8_t value_base;
	uint16_t used;
	uint64_t addr;       /* latest address */
	uint64_t addr_plus;  /* what it is expected to be above its base */
	uint64_t value;      /* latest value */
	uint64_t value_plus; /* what it is expected to be above its base */
	uint64_t distance;   /* latest phys - addr */
};
static_assert(sizeof(struct site) == 64, "one cache line, no padding");

struct predictor {
	struct site sites[SITE_COUNT];
	uint64_t cells[CELL_COUNT];         /* value last seen at a physical address */
	uint64_t distances[1 << PAGE_BITS]; /* phys - addr last seen on a linear page */
	uint64_t recent[RECENT_MASK + 1];   /* address and value by turns of the events before */
	uint32_t turn;                      /* where the next event's pair goes, even, counted without end */
	uint32_t replaced;                  /* sites that had to make room */
};

ALWAYS_INLINE uint64_t mix(uint64_t x, uint32_t bits)
{
	return x * UINT64_C(0x9E3779B97F4A7C15) >> (64 - bits);
}

ALWAYS_INLINE uint64_t *cell_of(struct predictor *p, uint64_t phys)
{
	return &p->cells[phys >> 2 & (CELL_COUNT - 1)]; /* Needed for every event: a hash would cost a twentieth. */
}

ALWAYS_INLINE uint64_t *distance_of(struct predictor *p, uint64_t addr)
{
	return &p->distances[mix(addr >> 12, PAGE_BITS)];
}

ALWAYS_INLINE uint64_t expected_addr(const struct predictor *p, const struct site *s)
{
	const uint64_t *base = s->addr_base == BASE_OWN ? &s->addr : &p->recent[(p->turn - s->addr_base) & RECENT_MASK];
	return *base + s->addr_plus;
}

ALWAYS_INLINE uint64_t expected_value(const struct predictor *p, const struct site *s, const uint64_t *cell)
{
	const uint64_t *base = &p->recent[(p->turn - s->value_base) & RECENT_MASK];
	if (s->value_base == BASE_CELL)
		base = cell;
	if (s->value_base == BASE_OWN_VALUE)
		base = &s->value;
	return *base + s->value_plus;
}

/* What every event leaves behind, expected or not. */
ALWAYS_INLINE void note_event(struct predictor *p, struct site *s, uint64_t addr, uint64_t value, uint64_t *cell)
{
	s->addr = addr;
	s->value = value;
	*cell = value;
	uint64_t *pair = &p->recent[p->turn & RECENT_MASK];
	pair[0] = addr;
	pair[1] = value;
	p->turn += 2;
}

/* Small for small differences of either sign. */
ALWAYS_INLINE uint64_t zigzag(uint64_t x)
{
	return x << 1 ^ (uint64_t)((int64_t)x >> 63);
}

ALWAYS_INLINE uint64_t unzigzag(uint64_t x)
{
	return x >> 1 ^ (0 - (x & 1));
}

/* A base to guess from, and how far it was off. */
struct guess {
	uint64_t off; /* zigzag of the difference */
	uint64_t base;
};

/* Without branches: none of them could be foretold. */
ALWAYS_INLINE struct guess nearer(struct guess best, uint64_t difference, uint32_t base)
{
	uint64_t off = zigzag(difference);
	bool better = off < best.off;
	best.base = better ? base : best.base;
	best.off = better ? off : best.off;
	return best;
}

ALWAYS_INLINE struct guess nearest_recent(const struct predictor *p, struct guess best, uint64_t x)
{
#pragma GCC unroll 8
	for (uint32_t back = 1; back <= 2 * RECENT_DEPTH; back++)
		best = nearer(best, x - p->recent[(p->turn - back) & RECENT_MASK], back);
	return best;
}

/* After a wrong guess: from now on the base that is nearest this time. Before note_event. */
ALWAYS_INLINE void learn_addr(const struct predictor *p, struct site *s, uint64_t addr)
{
	struct guess best = {zigzag(addr - s->addr), BASE_OWN};
	best = nearest_recent(p, best, addr);
	s->addr_base = (uint8_t)best.base;
	s->addr_plus = unzigzag(best.off);
}

ALWAYS_INLINE void learn_value(const struct predictor *p, struct site *s, uint64_t value, const uint64_t *cell)
{
	struct guess best = {zigzag(value - *cell), BASE_CELL};
	best = nearer(best, value - s->value, BASE_OWN_VALUE);
	best = nearest_recent(p, best, value);
	s->value_base = (uint8_t)best.base;
	s->value_plus = unzigzag(best.off);
}

/* `next` came `steps` steps after `s` although something else was expected. */
static inline void learn_next(struct predictor *p, struct site *s, const struct site *next, uint64_t steps)
{
	s->next[1] = s->next[0];
	s->steps[1] = s->steps[0];
	s->next[0] = (uint16_t)(next - p->sites);
	s->steps[0] = (uint16_t)steps; /* More do not fit, and then the next guess is wrong, which is no harm. */
}

/* The slot of a site, or the one where it is to be put: the first that is free, else each of them in turn. */
static inline struct site *find_site(struct predictor *p, uint64_t pc, uint32_t meta)
{
	struct site *ways = &p->sites[mix(pc ^ (uint64_t)meta << 29, SITE_BITS) & ~(uint64_t)(SITE_WAYS - 1)];
	for (uint32_t i = 0; i < SITE_WAYS; i++)
		if (!ways[i].used || (ways[i].pc == pc && ways[i].meta == meta))
			return &ways[i];
	return &ways[p->replaced++ % SITE_WAYS];
}

static inline void start_site(struct site *s, uint64_t pc, uint32_t meta)
{
	*s = (struct site){.pc = pc, .meta = meta, .used = 1};
}

#endif
