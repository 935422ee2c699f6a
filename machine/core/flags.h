/* Arithmetic flags, kept in parts (see struct cpu_state), and EFLAGS as a whole. */
#ifndef RACETAPE_FLAGS_H
#define RACETAPE_FLAGS_H

#include "machine.h"

ALWAYS_INLINE uint64_t size_mask(uint32_t size)
{
	return size == 8 ? ~UINT64_C(0) : (UINT64_C(1) << (size * 8)) - 1;
}

ALWAYS_INLINE int64_t sign_extend(uint64_t value, uint32_t size)
{
	uint32_t shift = 64 - size * 8;
	return (int64_t)(value << shift) >> shift;
}

/* SF, ZF and PF of a result. */
ALWAYS_INLINE void flags_set_result(struct cpu *c, uint64_t result, uint32_t size)
{
	int64_t value = sign_extend(result, size);
	c->s.zf_source = (uint64_t)value;
	c->s.sf_source = value;
	c->s.pf_source = (uint64_t)value;
}

ALWAYS_INLINE uint64_t top_bit(uint64_t value, uint32_t size)
{
	return value >> (size * 8 - 1) & 1;
}

/* Of ADC and SBB, whose result depends on CF as well. */
ALWAYS_INLINE void flags_adc(struct cpu *c, uint64_t a, uint64_t b, uint64_t result, uint32_t size)
{
	flags_set_result(c, result, size);
	c->s.cf = (uint32_t)top_bit((a & b) | ((a | b) & ~result), size);
	c->s.of = (uint32_t)top_bit((a ^ result) & (b ^ result), size);
	c->s.af_source = a ^ b ^ result;
}

ALWAYS_INLINE void flags_sbb(struct cpu *c, uint64_t a, uint64_t b, uint64_t result, uint32_t size)
{
	flags_set_result(c, result, size);
	c->s.cf = (uint32_t)top_bit((~a & b) | ((~a | b) & result), size);
	c->s.of = (uint32_t)top_bit((a ^ b) & (a ^ result), size);
	c->s.af_source = a ^ b ^ result;
}

/* The low `size` bytes of `value` as the high ones of a word: there the host's own carry and overflow are the guest's. */
ALWAYS_INLINE uint64_t at_top(uint64_t value, uint32_t size)
{
	return value << (64 - size * 8);
}

ALWAYS_INLINE void flags_add(struct cpu *c, uint64_t a, uint64_t b, uint64_t result, uint32_t size)
{
	uint64_t sum, x = at_top(a, size), y = at_top(b, size);
	int64_t signed_sum;
	flags_set_result(c, result, size);
	c->s.cf = __builtin_add_overflow(x, y, &sum);
	c->s.of = __builtin_add_overflow((int64_t)x, (int64_t)y, &signed_sum);
	c->s.af_source = a ^ b ^ result;
}

ALWAYS_INLINE void flags_sub(struct cpu *c, uint64_t a, uint64_t b, uint64_t result, uint32_t size)
{
	uint64_t x = at_top(a, size), y = at_top(b, size);
	int64_t signed_difference;
	flags_set_result(c, result, size);
	c->s.cf = x < y;
	c->s.of = __builtin_sub_overflow((int64_t)x, (int64_t)y, &signed_difference);
	c->s.af_source = a ^ b ^ result;
}

ALWAYS_INLINE bool flag_zf(const struct cpu *c) { return c->s.zf_source == 0; }
ALWAYS_INLINE bool flag_sf(const struct cpu *c) { return c->s.sf_source < 0; }
ALWAYS_INLINE bool flag_pf(const struct cpu *c) { return !(__builtin_popcountll(c->s.pf_source & 0xff) & 1); }
ALWAYS_INLINE bool flag_af(const struct cpu *c) { return c->s.af_source >> 4 & 1; }
ALWAYS_INLINE bool flag_cf(const struct cpu *c) { return c->s.cf; }
ALWAYS_INLINE bool flag_of(const struct cpu *c) { return c->s.of; }

static inline uint64_t flags_get(const struct cpu *c)
{
	return c->s.rflags | (flag_cf(c) ? FLAG_CF : 0) | (flag_pf(c) ? FLAG_PF : 0) | (flag_af(c) ? FLAG_AF : 0) |
	       (flag_zf(c) ? FLAG_ZF : 0) | (flag_sf(c) ? FLAG_SF : 0) | (flag_of(c) ? FLAG_OF : 0);
}

static inline void flags_set_arithmetic(struct cpu *c, uint64_t flags)
{
	c->s.cf = flags & FLAG_CF ? 1 : 0;
	c->s.pf_source = flags & FLAG_PF ? 0 : 1;
	c->s.af_source = flags & FLAG_AF;
	c->s.zf_source = flags & FLAG_ZF ? 0 : 1;
	c->s.sf_source = flags & FLAG_SF ? -1 : 0;
	c->s.of = flags & FLAG_OF ? 1 : 0;
}

static inline void flags_set(struct cpu *c, uint64_t flags)
{
	flags_set_arithmetic(c, flags);
	c->s.rflags = (flags & ~(uint64_t)FLAGS_ARITHMETIC) | FLAG_ONE;
}

/* Equal flags get equal parts, so that states can be compared and hashed as bytes. */
static inline void flags_canonicalise(struct cpu *c)
{
	flags_set(c, flags_get(c));
}

/* Condition codes in the encoding of Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B). */
ALWAYS_INLINE bool condition(const struct cpu *c, uint32_t code)
{
	bool value;
	switch (code >> 1 & 7) {
	case 0: value = flag_of(c); break;
	case 1: value = flag_cf(c); break;
	case 2: value = flag_zf(c); break;
	case 3: value = flag_cf(c) || flag_zf(c); break;
	case 4: value = flag_sf(c); break;
	case 5: value = flag_pf(c); break;
	case 6: value = flag_sf(c) != flag_of(c); break;
	default: value = flag_zf(c) || flag_sf(c) != flag_of(c); break;
	}
	return value != (code & 1);
}

#endif
