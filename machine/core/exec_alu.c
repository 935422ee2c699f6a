/* Arithmetic and logic: ADD..CMP, TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG, XCHG. SDM vol. 2. */
#include "exec.h"
#include "operand.h"
#include "visible.h"

enum alu { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP };

ALWAYS_INLINE void flags_logic(struct cpu *c, uint64_t result, uint32_t size)
{
	flags_set_result(c, result, size);
	c->s.cf = 0;
	c->s.of = 0;
	c->s.af_source = 0;
}

ALWAYS_INLINE uint64_t alu_value(const struct cpu *c, enum alu kind, uint64_t a, uint64_t b)
{
	switch (kind) {
	case ADD: return a + b;
	case OR: return a | b;
	case ADC: return a + b + c->s.cf;
	case SBB: return a - b - c->s.cf;
	case AND: return a & b;
	case SUB:
	case CMP: return a - b;
	default: return a ^ b;
	}
}

ALWAYS_INLINE void alu_flags(struct cpu *c, enum alu kind, uint64_t a, uint64_t b, uint64_t result, uint32_t size)
{
	switch (kind) {
	case ADD: flags_add(c, a, b, result, size); break;
	case ADC: flags_adc(c, a, b, result, size); break;
	case SBB: flags_sbb(c, a, b, result, size); break;
	case SUB:
	case CMP: flags_sub(c, a, b, result, size); break;
	default: flags_logic(c, result, size); break;
	}
}

ALWAYS_INLINE enum status alu_e(struct cpu *c, const struct op *op, uint32_t size, bool memory, enum alu kind, uint64_t b)
{
	uint64_t addr, a;
	if (kind == CMP) {
		TRY(e_get(c, op, size, memory, &a));
		alu_flags(c, kind, a, b, a - b, size);
		return STATUS_OK;
	}
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	uint64_t result = alu_value(c, kind, a, b);
	TRY(e_put(c, op, size, memory, addr, result));
	alu_flags(c, kind, a, b, result, size);
	return STATUS_OK;
}

#define ALU(name, kind)                                                                                     \
	ALWAYS_INLINE enum status name##_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return alu_e(c, op, size, memory, kind, reg_get(c, op->reg, size));                          \
	}                                                                                                    \
	HANDLERS(name##_e_g)                                                                                 \
	ALWAYS_INLINE enum status name##_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		return alu_e(c, op, size, memory, kind, (uint64_t)op->immediate & size_mask(size));          \
	}                                                                                                    \
	HANDLERS(name##_e_i)                                                                                 \
	ALWAYS_INLINE enum status name##_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                                    \
		uint64_t a = reg_get(c, op->reg, size), b;                                                   \
		TRY(e_get(c, op, size, memory, &b));                                                         \
		uint64_t result = alu_value(c, kind, a, b);                                                  \
		alu_flags(c, kind, a, b, result, size);                                                      \
		if (kind != CMP)                                                                             \
			reg_set(c, op->reg, size, result);                                                   \
		return STATUS_OK;                                                                            \
	}                                                                                                    \
	HANDLERS(name##_g_e)

ALU(add, ADD)
ALU(or, OR)
ALU(adc, ADC)
ALU(sbb, SBB)
ALU(and, AND)
ALU(sub, SUB)
ALU(xor, XOR)
ALU(cmp, CMP)

ALWAYS_INLINE enum status test_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t a;
	TRY(e_get(c, op, size, memory, &a));
	flags_logic(c, a & reg_get(c, op->reg, size), size);
	return STATUS_OK;
}
HANDLERS(test_e_g)

ALWAYS_INLINE enum status test_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t a;
	TRY(e_get(c, op, size, memory, &a));
	flags_logic(c, a & (uint64_t)op->immediate, size);
	return STATUS_OK;
}
HANDLERS(test_e_i)

/* INC and DEC leave CF alone. */
ALWAYS_INLINE void flags_step(struct cpu *c, uint64_t a, uint64_t result, uint32_t size, bool up)
{
	uint32_t carry = c->s.cf;
	if (up)
		flags_add(c, a, 1, result, size);
	else
		flags_sub(c, a, 1, result, size);
	c->s.cf = carry;
}

ALWAYS_INLINE enum status step_by_one(struct cpu *c, const struct op *op, uint32_t size, bool memory, bool up)
{
	uint64_t addr, a;
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	uint64_t result = up ? a + 1 : a - 1;
	TRY(e_put(c, op, size, memory, addr, result));
	flags_step(c, a, result, size, up);
	return STATUS_OK;
}

ALWAYS_INLINE enum status inc_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return step_by_one(c, op, size, memory, true);
}
HANDLERS(inc_e)

ALWAYS_INLINE enum status dec_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return step_by_one(c, op, size, memory, false);
}
HANDLERS(dec_e)

/* INC and DEC of the register in the opcode. */
ALWAYS_INLINE enum status step_register(struct cpu *c, const struct op *op, uint32_t size, bool up)
{
	uint64_t a = reg_get(c, op->reg, size), result = up ? a + 1 : a - 1;
	reg_set(c, op->reg, size, result);
	flags_step(c, a, result, size, up);
	return STATUS_OK;
}

ALWAYS_INLINE enum status inc_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return step_register(c, op, size, true);
}
HANDLERS(inc_z)

ALWAYS_INLINE enum status dec_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return step_register(c, op, size, false);
}
HANDLERS(dec_z)

ALWAYS_INLINE enum status neg_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t addr, a;
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	TRY(e_put(c, op, size, memory, addr, 0 - a));
	flags_sub(c, 0, a, 0 - a, size);
	return STATUS_OK;
}
HANDLERS(neg_e)

ALWAYS_INLINE enum status not_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t addr, a;
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	return e_put(c, op, size, memory, addr, ~a);
}
HANDLERS(not_e)

ALWAYS_INLINE enum status xadd_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t addr, a, b = reg_get(c, op->reg, size);
	TRY(e_get_for_write(c, op, size, memory, &addr, &a));
	uint64_t result = a + b;
	if (memory)
		TRY(mem_store(c, op, addr, size, result));
	reg_set(c, op->reg, size, a);
	if (!memory)
		reg_set(c, op->rm, size, result); /* last, as both may be one register */
	flags_add(c, a, b, result, size);
	return STATUS_OK;
}
HANDLERS(xadd_e_g)

ALWAYS_INLINE enum status cmpxchg_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t addr, a = reg_get(c, RAX, size), e;
	TRY(e_get_for_write(c, op, size, memory, &addr, &e));
	bool equal = a == e;
	/* A comparison that fails writes the old value back. */
	if (memory)
		TRY(mem_store(c, op, addr, size, equal ? reg_get(c, op->reg, size) : e));
	else if (equal)
		reg_set(c, op->rm, size, reg_get(c, op->reg, size));
	if (!equal) {
		visible_unequal(c);
		reg_set(c, RAX, size, e);
	}
	flags_sub(c, a, e, a - e, size);
	return STATUS_OK;
}
HANDLERS(cmpxchg_e_g)

/* CMPXCHG8B: one access of 8 bytes. */
static enum status compare_exchange_8(struct cpu *c, const struct op *op, bool *equal)
{
	uint64_t addr, e, expected = reg_get(c, RDX, 4) << 32 | reg_get(c, RAX, 4);
	TRY(op_address(c, op, 8, true, &addr));
	TRY(mem_load_for_write(c, op, addr, 8, &e));
	*equal = e == expected;
	TRY(mem_store(c, op, addr, 8, *equal ? reg_get(c, RCX, 4) << 32 | reg_get(c, RBX, 4) : e));
	if (!*equal) {
		visible_unequal(c);
		reg_set(c, RAX, 4, e);
		reg_set(c, RDX, 4, e >> 32);
	}
	return STATUS_OK;
}

/* CMPXCHG16B: two accesses of 8 bytes, both checked before the first; the operand is aligned. */
static enum status compare_exchange_16(struct cpu *c, const struct op *op, bool *equal)
{
	uint64_t addr, low, high;
	TRY(op_address(c, op, 16, true, &addr));
	if (addr & 15)
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(mem_load_for_write(c, op, addr, 8, &low));
	TRY(mem_load_for_write(c, op, addr + 8, 8, &high));
	*equal = low == c->s.gpr[RAX] && high == c->s.gpr[RDX];
	TRY(mem_store(c, op, addr, 8, *equal ? c->s.gpr[RBX] : low));
	TRY(mem_store(c, op, addr + 8, 8, *equal ? c->s.gpr[RCX] : high));
	if (!*equal) {
		visible_unequal(c);
		c->s.gpr[RAX] = low;
		c->s.gpr[RDX] = high;
	}
	return STATUS_OK;
}

ALWAYS_INLINE enum status cmpxchg8b_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	bool equal = false;
	TRY(size == 8 ? compare_exchange_16(c, op, &equal) : compare_exchange_8(c, op, &equal));
	uint64_t flags = flags_get(c) & ~(uint64_t)FLAG_ZF;
	flags_set_arithmetic(c, flags | (equal ? FLAG_ZF : 0));
	return STATUS_OK;
}
HANDLERS_ANY(cmpxchg8b_m)

ALWAYS_INLINE enum status xchg_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t addr, e, g = reg_get(c, op->reg, size);
	TRY(e_get_for_write(c, op, size, memory, &addr, &e));
	TRY(e_put(c, op, size, memory, addr, g));
	reg_set(c, op->reg, size, e);
	return STATUS_OK;
}
HANDLERS(xchg_e_g)

/* XCHG of the accumulator with the register in the opcode; 90 is NOP, F3 90 PAUSE. */
ALWAYS_INLINE enum status xchg_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	if (op->reg == RAX)
		return op->flags & OP_REP ? STATUS_PAUSE : STATUS_OK;
	uint64_t a = reg_get(c, RAX, size);
	reg_set(c, RAX, size, reg_get(c, op->reg, size));
	reg_set(c, op->reg, size, a);
	return STATUS_OK;
}
HANDLERS(xchg_z)

/* Decimal adjustment of AL (not in 64-bit code). OF is undefined: it is cleared. */
static void decimal_adjust(struct cpu *c, bool after_add)
{
	uint64_t al = reg_get(c, RAX, 1), old = al;
	bool carry = flag_cf(c), low = (al & 15) > 9 || flag_af(c), high = old > 0x99 || carry;
	if (low) {
		carry = carry || (after_add ? al + 6 > 0xff : al < 6);
		al += after_add ? 6 : (uint64_t)-6;
	}
	if (high)
		al += after_add ? 0x60 : (uint64_t)-0x60;
	flags_set_result(c, al & 0xff, 1);
	reg_set(c, RAX, 1, al);
	c->s.cf = after_add ? high : high || (low && carry);
	c->s.af_source = low ? FLAG_AF : 0;
	c->s.of = 0;
}

/* DAA 27, DAS 2F */
ALWAYS_INLINE enum status daa(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	decimal_adjust(c, op->opcode == 0x27);
	return STATUS_OK;
}
HANDLERS(daa)

/* AAA 37, AAS 3F: OF, SF, ZF and PF are undefined. */
ALWAYS_INLINE enum status aaa(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	bool adjust = (c->s.gpr[RAX] & 15) > 9 || flag_af(c);
	uint64_t ax = reg_get(c, RAX, 2);
	if (adjust)
		ax += op->opcode == 0x37 ? 0x106 : (uint64_t)-0x106;
	reg_set(c, RAX, 2, ax & 0xff0f);
	flags_set_result(c, ax & 0x0f, 1);
	c->s.cf = adjust;
	c->s.af_source = adjust ? FLAG_AF : 0;
	c->s.of = 0;
	return STATUS_OK;
}
HANDLERS(aaa)

ALWAYS_INLINE enum status aam(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	uint64_t al = reg_get(c, RAX, 1), divisor = (uint64_t)op->immediate & 0xff;
	if (!divisor)
		return fault_raise(c, VECTOR_DE);
	reg_set(c, RAX, 2, (al / divisor) << 8 | al % divisor);
	flags_logic(c, al % divisor, 1); /* CF, OF and AF are undefined */
	return STATUS_OK;
}
HANDLERS(aam)

ALWAYS_INLINE enum status aad(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	uint64_t ax = reg_get(c, RAX, 2), al = (ax + (ax >> 8) * (uint64_t)op->immediate) & 0xff;
	reg_set(c, RAX, 2, al);
	flags_logic(c, al, 1); /* CF, OF and AF are undefined */
	return STATUS_OK;
}
HANDLERS(aad)

/* SALC: AL = CF ? FF : 0 (undocumented, in every CPU outside 64-bit code). */
ALWAYS_INLINE enum status salc(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	reg_set(c, RAX, 1, flag_cf(c) ? 0xff : 0);
	return STATUS_OK;
}
HANDLERS(salc)
