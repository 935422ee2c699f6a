/* Shifts, rotates, bit tests and scans, multiplication and division. SDM vol. 2.
 * Flags that the manual calls undefined are given a fixed value: a replay must not differ. */
#include "exec.h"
#include "operand.h"

enum shift { ROL, ROR, RCL, RCR, SHL, SHR, SHL_ALIAS, SAR };

struct shifted {
	uint64_t value;
	uint32_t cf, of;
	bool result_flags; /* SF, ZF, PF follow the result; rotates leave them alone */
};

/* count is already masked to 5 bits, 6 for 64-bit operands, and not 0 */
ALWAYS_INLINE struct shifted shift_value(const struct cpu *c, enum shift kind, uint64_t a, uint32_t count, uint32_t size)
{
	uint32_t bits = size * 8;
	uint64_t top = UINT64_C(1) << (bits - 1);
	struct shifted r = {.value = a, .cf = c->s.cf, .result_flags = true};
	switch (kind) {
	case ROL:
	case ROR: {
		uint32_t n = count % bits;
		uint32_t left = kind == ROL ? n : (bits - n) % bits;
		r.value = left ? (a << left | a >> (bits - left)) & size_mask(size) : a;
		r.cf = kind == ROL ? r.value & 1 : !!(r.value & top);
		r.of = kind == ROL ? !!(r.value & top) ^ r.cf : !!(r.value & top) ^ !!(r.value & top >> 1);
		r.result_flags = false;
		break;
	}
	case RCL:
	case RCR: {
		uint32_t n = count % (bits + 1);
		for (uint32_t i = 0; i < n; i++) {
			if (kind == RCL) {
				uint32_t out = !!(r.value & top);
				r.value = (r.value << 1 | r.cf) & size_mask(size);
				r.cf = out;
			} else {
				uint32_t out = r.value & 1;
				r.value = r.value >> 1 | (uint64_t)r.cf << (bits - 1);
				r.cf = out;
			}
		}
		r.of = kind == RCL ? !!(r.value & top) ^ r.cf : !!(r.value & top) ^ !!(r.value & top >> 1);
		r.result_flags = false;
		break;
	}
	case SHL:
	case SHL_ALIAS:
		r.value = a << count & size_mask(size);
		r.cf = count <= bits ? a >> (bits - count) & 1 : 0;
		r.of = !!(r.value & top) ^ r.cf;
		break;
	case SHR:
		r.value = a >> count;
		r.cf = a >> (count - 1) & 1;
		r.of = !!(a & top);
		break;
	case SAR: {
		int64_t wide = sign_extend(a, size);
		r.value = (uint64_t)(wide >> count) & size_mask(size);
		r.cf = (uint32_t)(wide >> (count - 1) & 1);
		r.of = 0;
		break;
	}
	}
	return r;
}

ALWAYS_INLINE enum status shift_e(struct cpu *c, const struct op *op, uint32_t size, bool memory, enum shift kind,
				  uint32_t count)
{
	uint64_t addr, a;
	count &= size == 8 ? 63 : 31;
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	if (!count) /* memory is written all the same, flags stay */
		return e_put(c, op, size, memory, addr, a);
	struct shifted r = shift_value(c, kind, a, count, size);
	TRY(e_put(c, op, size, memory, addr, r.value));
	c->s.cf = r.cf;
	c->s.of = r.of;
	if (r.result_flags) {
		flags_set_result(c, r.value, size);
		c->s.af_source = 0;
	}
	return STATUS_OK;
}

#define SHIFT(name, kind)                                                                                    \
	ALWAYS_INLINE enum status name##_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return shift_e(c, op, size, memory, kind, (uint32_t)op->immediate);                          \
	}                                                                                                    \
	HANDLERS(name##_e_i)                                                                                 \
	ALWAYS_INLINE enum status name##_e_1(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return shift_e(c, op, size, memory, kind, 1);                                                \
	}                                                                                                    \
	HANDLERS(name##_e_1)                                                                                 \
	ALWAYS_INLINE enum status name##_e_cl(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return shift_e(c, op, size, memory, kind, (uint32_t)reg_get(c, RCX, 1));                     \
	}                                                                                                    \
	HANDLERS(name##_e_cl)

SHIFT(rol, ROL)
SHIFT(ror, ROR)
SHIFT(rcl, RCL)
SHIFT(rcr, RCR)
SHIFT(shl, SHL)
SHIFT(shr, SHR)
SHIFT(sar, SAR)

/* SHLD and SHRD: the operands side by side, shifted as one. */
ALWAYS_INLINE enum status double_shift(struct cpu *c, const struct op *op, uint32_t size, bool memory, bool left,
				       uint32_t count)
{
	uint64_t addr, a, b = reg_get(c, op->reg, size);
	uint32_t bits = size * 8;
	count &= size == 8 ? 63 : 31;
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	if (!count)
		return e_put(c, op, size, memory, addr, a);
	/* Three words wide, so that the counts above 16 of the 16-bit form shift the source in again, as CPUs do. */
	unsigned __int128 wide;
	uint64_t result;
	uint32_t carry;
	if (size == 8) {
		result = left ? a << count | b >> (64 - count) : a >> count | b << (64 - count);
		carry = (uint32_t)(left ? a >> (64 - count) : a >> (count - 1)) & 1;
	} else if (left) {
		wide = (unsigned __int128)a << 2 * bits | (unsigned __int128)b << bits | (size == 2 ? a : 0);
		result = (uint64_t)(wide >> (2 * bits - count)) & size_mask(size);
		carry = (uint32_t)(wide >> (3 * bits - count)) & 1;
	} else {
		wide = (unsigned __int128)(size == 2 ? a : 0) << 2 * bits | (unsigned __int128)b << bits | a;
		result = (uint64_t)(wide >> count) & size_mask(size);
		carry = (uint32_t)(wide >> (count - 1)) & 1;
	}
	TRY(e_put(c, op, size, memory, addr, result));
	flags_set_result(c, result, size);
	c->s.cf = carry;
	c->s.of = (a ^ result) >> (bits - 1) & 1;
	c->s.af_source = 0;
	return STATUS_OK;
}

#define DOUBLE_SHIFT(name, left)                                                                             \
	ALWAYS_INLINE enum status name##_e_g_i(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return double_shift(c, op, size, memory, left, (uint32_t)op->immediate);                     \
	}                                                                                                    \
	HANDLERS(name##_e_g_i)                                                                               \
	ALWAYS_INLINE enum status name##_e_g_cl(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return double_shift(c, op, size, memory, left, (uint32_t)reg_get(c, RCX, 1));                \
	}                                                                                                    \
	HANDLERS(name##_e_g_cl)

DOUBLE_SHIFT(shld, true)
DOUBLE_SHIFT(shrd, false)

enum bit_test { BT, BTS, BTR, BTC };

/* BT changes CF only. */
ALWAYS_INLINE enum status bit_test(struct cpu *c, const struct op *op, uint32_t size, bool memory, enum bit_test kind,
				   bool by_register)
{
	uint32_t bits = size * 8;
	uint64_t addr = 0, value;
	int64_t number = by_register ? sign_extend(reg_get(c, op->reg, size), size) : (op->immediate & (bits - 1));
	if (memory) {
		/* A register bit offset reaches beyond the operand: the word that holds the bit is accessed. */
		uint64_t offset = op_offset(c, op) + (uint64_t)((number >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * (int64_t)size);
		offset &= op->address_mask;
		TRY(linear(c, op->segment, offset, size, kind != BT, &addr));
		if (kind == BT)
			TRY(mem_load(c, op, addr, size, &value));
		else
			TRY(mem_load_for_write(c, op, addr, size, &value));
	} else {
		value = reg_get(c, op->rm, size);
	}
	uint64_t bit = UINT64_C(1) << (number & (bits - 1));
	uint64_t result = kind == BTS ? value | bit : kind == BTR ? value & ~bit : value ^ bit;
	if (kind != BT)
		TRY(e_put(c, op, size, memory, addr, result));
	c->s.cf = !!(value & bit);
	return STATUS_OK;
}

#define BIT_TEST(name, kind)                                                                                 \
	ALWAYS_INLINE enum status name##_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return bit_test(c, op, size, memory, kind, true);                                            \
	}                                                                                                    \
	HANDLERS(name##_e_g)                                                                                 \
	ALWAYS_INLINE enum status name##_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return bit_test(c, op, size, memory, kind, false);                                           \
	}                                                                                                    \
	HANDLERS(name##_e_i)

BIT_TEST(bt, BT)
BIT_TEST(bts, BTS)
BIT_TEST(btr, BTR)
BIT_TEST(btc, BTC)

/* BSF and BSR: a zero source sets ZF and leaves the destination alone, as CPUs do. */
ALWAYS_INLINE enum status bit_scan(struct cpu *c, const struct op *op, uint32_t size, bool memory, bool forward)
{
	uint64_t a;
	TRY(e_get(c, op, size, memory, &a));
	uint64_t flags = flags_get(c) & ~(uint64_t)FLAG_ZF;
	flags_set_arithmetic(c, flags | (a ? 0 : FLAG_ZF));
	if (a)
		reg_set(c, op->reg, size, forward ? (uint64_t)__builtin_ctzll(a) : 63 - (uint64_t)__builtin_clzll(a));
	return STATUS_OK;
}

ALWAYS_INLINE enum status bsf_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return bit_scan(c, op, size, memory, true);
}
HANDLERS(bsf_g_e)

ALWAYS_INLINE enum status bsr_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return bit_scan(c, op, size, memory, false);
}
HANDLERS(bsr_g_e)

/* TZCNT and LZCNT: a zero source counts all bits and sets CF; ZF is set if the result is 0. */
ALWAYS_INLINE enum status zero_count(struct cpu *c, const struct op *op, uint32_t size, bool memory, bool trailing)
{
	uint64_t a, bits = size * 8, count;
	TRY(e_get(c, op, size, memory, &a));
	if (!a)
		count = bits;
	else
		count = trailing ? (uint64_t)__builtin_ctzll(a) : (uint64_t)__builtin_clzll(a) - (64 - bits);
	reg_set(c, op->reg, size, count);
	flags_set_result(c, count, size); /* SF and PF are undefined, as are AF and OF */
	c->s.af_source = 0;
	c->s.cf = !a;
	c->s.of = 0;
	return STATUS_OK;
}

ALWAYS_INLINE enum status tzcnt_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return zero_count(c, op, size, memory, true);
}
HANDLERS(tzcnt_g_e)

ALWAYS_INLINE enum status lzcnt_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return zero_count(c, op, size, memory, false);
}
HANDLERS(lzcnt_g_e)

ALWAYS_INLINE enum status popcnt_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t a;
	TRY(e_get(c, op, size, memory, &a));
	reg_set(c, op->reg, size, (uint64_t)__builtin_popcountll(a));
	flags_set_arithmetic(c, a ? 0 : FLAG_ZF);
	return STATUS_OK;
}
HANDLERS(popcnt_g_e)

/* CRC32: the Castagnoli polynomial, bits reflected, no inversion. The destination is 32 bits, or 64 with the upper half
 * cleared; op->size is that of the source. */
ALWAYS_INLINE enum status crc32_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t value;
	TRY(e_get(c, op, size, memory, &value));
	uint32_t crc = (uint32_t)c->s.gpr[op->reg];
	for (uint32_t byte = 0; byte < size; byte++) {
		crc ^= (uint32_t)(value >> byte * 8 & 0xff);
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	c->s.gpr[op->reg] = crc;
	return STATUS_OK;
}
HANDLERS(crc32_g_e)

static void flags_multiply(struct cpu *c, uint64_t low, uint32_t size, bool overflow)
{
	flags_set_result(c, low, size); /* undefined by the manual */
	c->s.af_source = 0;
	c->s.cf = c->s.of = overflow;
}

ALWAYS_INLINE void accumulator_pair_set(struct cpu *c, uint32_t size, uint64_t low, uint64_t high)
{
	if (size == 1) {
		reg_set(c, RAX, 2, (low & 0xff) | (high & 0xff) << 8);
		return;
	}
	reg_set(c, RAX, size, low);
	reg_set(c, RDX, size, high);
}

ALWAYS_INLINE enum status mul_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	unsigned __int128 product = (unsigned __int128)reg_get(c, RAX, size) * e;
	uint64_t high = (uint64_t)(product >> size * 8);
	accumulator_pair_set(c, size, (uint64_t)product, high);
	flags_multiply(c, (uint64_t)product, size, high != 0);
	return STATUS_OK;
}
HANDLERS(mul_e)

ALWAYS_INLINE enum status imul_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	__int128 product = (__int128)sign_extend(reg_get(c, RAX, size), size) * sign_extend(e, size);
	uint64_t low = (uint64_t)product;
	accumulator_pair_set(c, size, low, (uint64_t)((unsigned __int128)product >> size * 8));
	flags_multiply(c, low, size, product != sign_extend(low, size));
	return STATUS_OK;
}
HANDLERS(imul_e)

ALWAYS_INLINE enum status imul_into(struct cpu *c, const struct op *op, uint32_t size, uint64_t a, uint64_t b)
{
	__int128 product = (__int128)sign_extend(a, size) * sign_extend(b, size);
	uint64_t low = (uint64_t)product;
	reg_set(c, op->reg, size, low);
	flags_multiply(c, low, size, product != sign_extend(low, size));
	return STATUS_OK;
}

ALWAYS_INLINE enum status imul_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	return imul_into(c, op, size, reg_get(c, op->reg, size), e);
}
HANDLERS(imul_g_e)

ALWAYS_INLINE enum status imul_g_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	return imul_into(c, op, size, e, (uint64_t)op->immediate & size_mask(size));
}
HANDLERS(imul_g_e_i)

/* The accumulator pair: AX, DX:AX, EDX:EAX or RDX:RAX. */
ALWAYS_INLINE unsigned __int128 dividend(const struct cpu *c, uint32_t size)
{
	if (size == 1)
		return reg_get(c, RAX, 2);
	return (unsigned __int128)reg_get(c, RDX, size) << size * 8 | reg_get(c, RAX, size);
}

/* All flags are undefined: unchanged. */
ALWAYS_INLINE enum status div_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	unsigned __int128 a = dividend(c, size);
	/* The quotient fits if the upper half is below the divisor; so does its computation in 64 bits, but for size 8. */
	if (e <= (uint64_t)(a >> size * 8))
		return fault_raise(c, VECTOR_DE);
	if (size == 8)
		accumulator_pair_set(c, size, (uint64_t)(a / e), (uint64_t)(a % e));
	else
		accumulator_pair_set(c, size, (uint64_t)a / e, (uint64_t)a % e);
	return STATUS_OK;
}
HANDLERS(div_e)

ALWAYS_INLINE enum status idiv_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	__int128 divisor = sign_extend(e, size), a = (__int128)dividend(c, size);
	if (size < 8)
		a = sign_extend((uint64_t)a, size * 2);
	if (!divisor || (divisor == -1 && size == 8 && (uint64_t)(a >> 64) == UINT64_C(1) << 63 && !(uint64_t)a))
		return fault_raise(c, VECTOR_DE);
	__int128 quotient = size == 8 ? a / divisor : 0, rest = size == 8 ? a % divisor : 0;
	if (size < 8) {
		if (size == 4 && (int64_t)a == INT64_MIN && divisor == -1)
			return fault_raise(c, VECTOR_DE);
		quotient = (int64_t)a / (int64_t)divisor;
		rest = (int64_t)a % (int64_t)divisor;
	}
	if (quotient != sign_extend((uint64_t)quotient, size))
		return fault_raise(c, VECTOR_DE);
	accumulator_pair_set(c, size, (uint64_t)quotient, (uint64_t)rest);
	return STATUS_OK;
}
HANDLERS(idiv_e)
