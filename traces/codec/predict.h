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
	RECENT_COUNT = 8, /* addresses and values looked back at: those of four events */
	BASE_OWN = 0,     /* of addresses: what the site itself had last */
	BASE_CELL = 0,    /* of values: what was last seen at that memory */
	BASE_OWN_VALUE = RECENT_COUNT + 1,
};

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
	uint8_t addr_base;   /* coder and decoder each have their own way to write bases down */
	uint8_t value_base;
	uint8_t addr_streak; /* how often in a row the guess was wrong, modulo 256; not in codec 3 */
	uint8_t value_streak;
	uint64_t addr;       /* latest address */
	uint64_t addr_plus;  /* what it is expected to be above its base */
	uint64_t value;      /* latest value */
	uint64_t value_plus; /* what it is expected to be above its base */
	uint64_t distance;   /* latest phys - addr */
};
static_assert(sizeof(struct site) == 64, "one cache line, no padding");

struct predictor {
	struct site sites[SITE_COUNT];
	uint8_t used[SITE_COUNT / SITE_WAYS]; /* how many of the slots in which a site may stand have one */
	uint64_t cells[CELL_COUNT];         /* value last seen at a physical address */
	uint64_t distances[1 << PAGE_BITS]; /* phys - addr last seen on a linear page */
	uint32_t replaced;                  /* sites that had to make room */
};

ALWAYS_INLINE uint64_t mix(uint64_t x, uint32_t bits)
{
	return x * UINT64_C(0x9E3779B97F4A7C15) >> (64 - bits);
}

/* Needed for every event: a hash would cost a twentieth. */
ALWAYS_INLINE uint64_t *cell_of(struct predictor *p, uint64_t phys, enum codec codec)
{
	uint64_t dword = phys >> 2, byte = phys & 3;
	return &p->cells[(codec == CODEC_3 ? dword : dword + byte * (CELL_COUNT / 4)) & (CELL_COUNT - 1)];
}

ALWAYS_INLINE uint64_t *distance_of(struct predictor *p, uint64_t addr)
{
	return &p->distances[mix(addr >> 12, PAGE_BITS)];
}

/* What every event leaves behind, expected or not. */
ALWAYS_INLINE void note_event(struct site *s, uint64_t addr, uint64_t value, uint64_t *cell)
{
	s->addr = addr;
	s->value = value;
	*cell = value;
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
	uint64_t off; /* the difference; zigzag of it while the nearest is looked for */
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

ALWAYS_INLINE struct guess nearest_recent(const uint64_t recent[RECENT_COUNT], struct guess best, uint64_t x)
{
#pragma GCC unroll 8
	for (uint32_t i = 0; i < RECENT_COUNT; i++)
		best = nearer(best, x - recent[i], i + 1);
	return best;
}

/* The base that is nearest this time, and what `addr` is above it. Before note_event. */
ALWAYS_INLINE struct guess learn_addr(const uint64_t recent[RECENT_COUNT], const struct site *s, uint64_t addr)
{
	struct guess best = {zigzag(addr - s->addr), BASE_OWN};
	best = nearest_recent(recent, best, addr);
	return (struct guess){unzigzag(best.off), best.base};
}

ALWAYS_INLINE struct guess learn_value(const uint64_t recent[RECENT_COUNT], const struct site *s, uint64_t value, uint64_t cell)
{
	struct guess best = {zigzag(value - cell), BASE_CELL};
	best = nearer(best, value - s->value, BASE_OWN_VALUE);
	best = nearest_recent(recent, best, value);
	return (struct guess){unzigzag(best.off), best.base};
}

/* Counts a guess. Without a branch. */
ALWAYS_INLINE void count_guess(uint8_t *streak, bool wrong)
{
	*streak = wrong ? (uint8_t)(*streak + 1) : 0;
}

/* A guess that was wrong once will be right again, and one that always is remains so: after 2, 4, 8, ... in a row. */
ALWAYS_INLINE bool learns_after(uint8_t streak)
{
	return (streak > 1) & !(streak & (streak - 1));
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
static inline struct site *find_site(struct predictor *p, uint64_t pc, uint32_t meta, bool *known)
{
	uint64_t bucket = mix(pc ^ (uint64_t)meta << 29, SITE_BITS) / SITE_WAYS;
	struct site *ways = &p->sites[bucket * SITE_WAYS];
	uint32_t used = p->used[bucket];
	for (uint32_t i = 0; i < used; i++)
		if (ways[i].pc == pc && ways[i].meta == meta) {
			*known = true;
			return &ways[i];
		}
	*known = false;
	if (used == SITE_WAYS)
		return &ways[p->replaced++ % SITE_WAYS];
	p->used[bucket]++;
	return &ways[used];
}

static inline void start_site(struct site *s, uint64_t pc, uint32_t meta)
{
	/* Wrong once: the first guess, which is nothing but zeros, is dropped as soon as it fails. */
	*s = (struct site){.pc = pc, .meta = meta, .addr_streak = 1, .value_streak = 1};
}

#endif
