/* Moves, conversions, stack and string instructions. SDM vol. 2. */
#include "device.h"
#include "exec.h"
#include "operand.h"

ALWAYS_INLINE enum status mov_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return e_set(c, op, size, memory, reg_get(c, op->reg, size));
}
HANDLERS(mov_e_g)

ALWAYS_INLINE enum status mov_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	reg_set(c, op->reg, size, e);
	return STATUS_OK;
}
HANDLERS(mov_g_e)

ALWAYS_INLINE enum status mov_e_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return e_set(c, op, size, memory, (uint64_t)op->immediate & size_mask(size));
}
HANDLERS(mov_e_i)

ALWAYS_INLINE enum status mov_z_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	reg_set(c, op->reg, size, (uint64_t)op->immediate & size_mask(size));
	return STATUS_OK;
}
HANDLERS(mov_z_i)

/* MOV between the accumulator and an absolute offset: the E operand is that offset. */
ALWAYS_INLINE enum status mov_a_o(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t value;
	TRY(e_get(c, op, size, memory, &value));
	reg_set(c, RAX, size, value);
	return STATUS_OK;
}
HANDLERS(mov_a_o)

ALWAYS_INLINE enum status mov_o_a(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return e_set(c, op, size, memory, reg_get(c, RAX, size));
}
HANDLERS(mov_o_a)

ALWAYS_INLINE enum status extend(struct cpu *c, const struct op *op, uint32_t size, bool memory, uint32_t from, bool sign)
{
	uint64_t e;
	TRY(e_get(c, op, from, memory, &e));
	reg_set(c, op->reg, size, sign ? (uint64_t)sign_extend(e, from) & size_mask(size) : e);
	return STATUS_OK;
}

#define EXTEND(name, from, sign)                                                                       \
	ALWAYS_INLINE enum status name(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                              \
		return extend(c, op, size, memory, from, sign);                                        \
	}                                                                                              \
	HANDLERS(name)

EXTEND(movzx_g_eb, 1, false)
EXTEND(movzx_g_ew, 2, false)
EXTEND(movsx_g_eb, 1, true)
EXTEND(movsx_g_ew, 2, true)

/* MOVSXD: from 32 bits; with a 16-bit destination, from 16. */
ALWAYS_INLINE enum status movsxd_g_ed(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return extend(c, op, size, memory, size == 2 ? 2 : 4, true);
}
HANDLERS(movsxd_g_ed)

ALWAYS_INLINE enum status lea_g_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	reg_set(c, op->reg, size, op_offset(c, op));
	return STATUS_OK;
}
HANDLERS(lea_g_m)

ALWAYS_INLINE enum status bswap_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	/* The 16-bit form is undefined; CPUs clear the register. */
	uint64_t value = c->s.gpr[op->reg];
	reg_set(c, op->reg, size, size == 2 ? 0 : size == 4 ? __builtin_bswap32((uint32_t)value) : __builtin_bswap64(value));
	return STATUS_OK;
}
HANDLERS(bswap_z)

ALWAYS_INLINE uint64_t bytes_reversed(uint64_t value, uint32_t size)
{
	return __builtin_bswap64(value) >> (64 - size * 8);
}

ALWAYS_INLINE enum status movbe_g_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	reg_set(c, op->reg, size, bytes_reversed(e, size));
	return STATUS_OK;
}
HANDLERS(movbe_g_m)

ALWAYS_INLINE enum status movbe_m_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return e_set(c, op, size, memory, bytes_reversed(reg_get(c, op->reg, size), size));
}
HANDLERS(movbe_m_g)

/* CBW, CWDE, CDQE */
ALWAYS_INLINE enum status cwde(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	uint32_t half = size > 1 ? size / 2 : 1; /* there is no form of one byte */
	reg_set(c, RAX, size, (uint64_t)sign_extend(reg_get(c, RAX, half), half));
	return STATUS_OK;
}
HANDLERS(cwde)

/* CWD, CDQ, CQO */
ALWAYS_INLINE enum status cdq(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	reg_set(c, RDX, size, sign_extend(reg_get(c, RAX, size), size) < 0 ? size_mask(size) : 0);
	return STATUS_OK;
}
HANDLERS(cdq)

ALWAYS_INLINE enum status xlat(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	uint64_t addr, value;
	TRY(linear(c, op->segment, (c->s.gpr[RBX] + reg_get(c, RAX, 1)) & op->address_mask, 1, false, &addr));
	TRY(mem_load(c, op, addr, 1, &value));
	reg_set(c, RAX, 1, value);
	return STATUS_OK;
}
HANDLERS(xlat)

ALWAYS_INLINE enum status setcc_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return e_set(c, op, size, memory, condition(c, op->opcode & 15));
}
HANDLERS(setcc_e)

ALWAYS_INLINE enum status cmovcc_g_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e)); /* the load happens, and may fault, whatever the condition */
	/* Written in any case: the upper half of a 32-bit destination is cleared even if nothing moves. */
	reg_set(c, op->reg, size, condition(c, op->opcode & 15) ? e : reg_get(c, op->reg, size));
	return STATUS_OK;
}
HANDLERS(cmovcc_g_e)

ALWAYS_INLINE enum status push_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return stack_push(c, op, size, reg_get(c, op->reg, size));
}
HANDLERS(push_z)

ALWAYS_INLINE enum status push_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return stack_push(c, op, size, (uint64_t)op->immediate & size_mask(size));
}
HANDLERS(push_i)

ALWAYS_INLINE enum status push_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t e;
	TRY(e_get(c, op, size, memory, &e));
	return stack_push(c, op, size, e);
}
HANDLERS(push_e)

ALWAYS_INLINE enum status pop_z(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t value;
	TRY(stack_peek(c, op, 0, size, &value));
	stack_drop(c, size);
	reg_set(c, op->reg, size, value); /* after the drop: POP ESP loads ESP */
	return STATUS_OK;
}
HANDLERS(pop_z)

ALWAYS_INLINE enum status pop_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t value, old = c->s.gpr[RSP];
	TRY(stack_peek(c, op, 0, size, &value));
	stack_drop(c, size); /* an ESP-based destination address uses the new ESP */
	enum status status = e_set(c, op, size, memory, value);
	if (status != STATUS_OK)
		c->s.gpr[RSP] = old;
	return status;
}
HANDLERS(pop_e)

ALWAYS_INLINE enum status pusha(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t old = c->s.gpr[RSP];
	TRY(stack_probe(c, size, 8));
	for (uint32_t reg = 0; reg < 8; reg++) {
		enum status status = stack_push(c, op, size, (reg == RSP ? old : c->s.gpr[reg]) & size_mask(size));
		if (status != STATUS_OK) {
			c->s.gpr[RSP] = old;
			return status;
		}
	}
	return STATUS_OK;
}
HANDLERS_SYNCED(pusha)

ALWAYS_INLINE enum status popa(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t value[8];
	for (uint32_t i = 0; i < 8; i++)
		TRY(stack_peek(c, op, i * size, size, &value[i]));
	for (uint32_t i = 0; i < 8; i++)
		if (7 - i != RSP)
			reg_set(c, 7 - i, size, value[i]);
	stack_drop(c, 8 * size);
	return STATUS_OK;
}
HANDLERS_SYNCED(popa)

ALWAYS_INLINE enum status enter(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint32_t level = op->selector & 31;
	uint64_t old_sp = c->s.gpr[RSP], frame_base = c->s.gpr[RBP], addr, value;
	/* The pushes: the old frame pointer, level - 1 outer ones and the new one. Then the frame is set aside, and a
	 * write at its end has to be possible (SDM, ENTER). */
	uint32_t pushes = level ? level + 1 : 1;
	TRY(stack_probe(c, size, pushes));
	TRY(linear(c, SS, (old_sp - pushes * size - (uint64_t)op->immediate) & stack_mask(c), size, true, &addr));
	TRY(access_probe_write(c, addr, size, false));
	TRY(stack_push(c, op, size, reg_get(c, RBP, size)));
	uint64_t frame = c->s.gpr[RSP];
	enum status status = STATUS_OK;
	for (uint32_t i = 1; i < level && status == STATUS_OK; i++) {
		frame_base -= size;
		status = linear(c, SS, frame_base & stack_mask(c), size, false, &addr);
		if (status == STATUS_OK)
			status = mem_load_info(c, op, addr, size, ACCESS_STACK, &value);
		if (status == STATUS_OK)
			status = stack_push(c, op, size, value);
	}
	if (status == STATUS_OK && level)
		status = stack_push(c, op, size, frame & size_mask(size));
	if (status != STATUS_OK) {
		c->s.gpr[RSP] = old_sp;
		return status;
	}
	reg_set(c, RBP, size, frame);
	stack_set(c, c->s.gpr[RSP] - (uint64_t)op->immediate);
	return STATUS_OK;
}
HANDLERS_SYNCED(enter)

ALWAYS_INLINE enum status leave(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t frame = c->s.gpr[RBP] & stack_mask(c), addr, value;
	TRY(linear(c, SS, frame, size, false, &addr));
	TRY(mem_load_info(c, op, addr, size, ACCESS_STACK, &value));
	stack_set(c, frame + size);
	reg_set(c, RBP, size, value);
	return STATUS_OK;
}
HANDLERS(leave)

ALWAYS_INLINE enum status sahf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	uint64_t low = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF;
	flags_set_arithmetic(c, (c->s.gpr[RAX] >> 8 & low) | (flags_get(c) & FLAG_OF));
	return STATUS_OK;
}
HANDLERS(sahf)

ALWAYS_INLINE enum status lahf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	reg_set(c, GPR_HIGH, 1, flags_get(c) & 0xff); /* AH */
	return STATUS_OK;
}
HANDLERS(lahf)

/* --- string instructions: with REP, each iteration is a step of its own, and faults and interrupts come between --- */

struct string {
	uint64_t mask;	   /* of RSI, RDI and RCX */
	uint64_t step;	   /* what is added to the pointers */
	bool repeated;
};

ALWAYS_INLINE struct string string_begin(const struct cpu *c, const struct op *op, uint32_t size)
{
	return (struct string){
		.mask = op->address_mask,
		.step = c->s.rflags & FLAG_DF ? 0 - (uint64_t)size : size,
		.repeated = op->flags & (OP_REP | OP_REPNE),
	};
}

/* A 16-bit pointer leaves the rest of its register alone; a 32-bit one clears the upper half. */
ALWAYS_INLINE void pointer_set(struct cpu *c, uint32_t reg, uint64_t mask, uint64_t value)
{
	uint64_t kept = mask == 0xffff ? c->s.gpr[reg] & ~mask : 0;
	c->s.gpr[reg] = kept | (value & mask);
}

ALWAYS_INLINE void pointer_advance(struct cpu *c, const struct string *s, uint32_t reg)
{
	pointer_set(c, reg, s->mask, c->s.gpr[reg] + s->step);
}

/* With nothing to repeat, 32-bit addresses still clear the upper halves of the registers in 64-bit code. */
ALWAYS_INLINE void pointers_truncate(struct cpu *c, const struct string *s, bool source, bool destination)
{
	pointer_set(c, RCX, s->mask, c->s.gpr[RCX]);
	if (source)
		pointer_set(c, RSI, s->mask, c->s.gpr[RSI]);
	if (destination)
		pointer_set(c, RDI, s->mask, c->s.gpr[RDI]);
}

/* Counts an iteration; STATUS_REPEAT (and rip back on this instruction) if more follow. */
ALWAYS_INLINE enum status string_end(struct cpu *c, const struct op *op, const struct string *s, bool go_on)
{
	if (!s->repeated)
		return STATUS_OK;
	pointer_set(c, RCX, s->mask, c->s.gpr[RCX] - 1);
	if (!(c->s.gpr[RCX] & s->mask) || !go_on)
		return STATUS_OK;
	c->s.rip = op_rip(c, op);
	return STATUS_REPEAT;
}

#define STRING_BEGIN(s, source, destination)                    \
	(void)memory;                                           \
	struct string s = string_begin(c, op, size);            \
	if (s.repeated && !(c->s.gpr[RCX] & s.mask)) {          \
		pointers_truncate(c, &s, source, destination);  \
		return STATUS_OK;                               \
	}

ALWAYS_INLINE enum status movs(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, true, true)
	uint64_t from, to, value;
	TRY(linear(c, op->segment, c->s.gpr[RSI] & s.mask, size, false, &from));
	TRY(linear(c, ES, c->s.gpr[RDI] & s.mask, size, true, &to));
	TRY(mem_load(c, op, from, size, &value));
	TRY(mem_store(c, op, to, size, value));
	pointer_advance(c, &s, RSI);
	pointer_advance(c, &s, RDI);
	return string_end(c, op, &s, true);
}
HANDLERS_SYNCED(movs)

ALWAYS_INLINE enum status stos(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, false, true)
	uint64_t to;
	TRY(linear(c, ES, c->s.gpr[RDI] & s.mask, size, true, &to));
	TRY(mem_store(c, op, to, size, reg_get(c, RAX, size)));
	pointer_advance(c, &s, RDI);
	return string_end(c, op, &s, true);
}
HANDLERS_SYNCED(stos)

ALWAYS_INLINE enum status lods(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, true, false)
	uint64_t from, value;
	TRY(linear(c, op->segment, c->s.gpr[RSI] & s.mask, size, false, &from));
	TRY(mem_load(c, op, from, size, &value));
	reg_set(c, RAX, size, value);
	pointer_advance(c, &s, RSI);
	return string_end(c, op, &s, true);
}
HANDLERS_SYNCED(lods)

/* Flags come from the last iteration alone: after a fault in the middle, those from before the instruction are there. */
ALWAYS_INLINE enum status compare_end(struct cpu *c, const struct op *op, const struct string *s, uint32_t size, uint64_t a,
				      uint64_t b)
{
	enum status status = string_end(c, op, s, (a == b) == !!(op->flags & OP_REP));
	if (status == STATUS_OK)
		flags_sub(c, a, b, a - b, size);
	return status;
}

ALWAYS_INLINE enum status cmps(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, true, true)
	uint64_t first, second, a, b;
	TRY(linear(c, op->segment, c->s.gpr[RSI] & s.mask, size, false, &first));
	TRY(linear(c, ES, c->s.gpr[RDI] & s.mask, size, false, &second));
	struct loads loads = {0};
	TRY(access_load_next(c, op, first, size, false, &loads, &a));
	TRY(access_load_next(c, op, second, size, true, &loads, &b));
	pointer_advance(c, &s, RSI);
	pointer_advance(c, &s, RDI);
	return compare_end(c, op, &s, size, a, b);
}
HANDLERS_SYNCED(cmps)

ALWAYS_INLINE enum status scas(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, false, true)
	uint64_t at, a = reg_get(c, RAX, size), b;
	TRY(linear(c, ES, c->s.gpr[RDI] & s.mask, size, false, &at));
	TRY(mem_load(c, op, at, size, &b));
	pointer_advance(c, &s, RDI);
	return compare_end(c, op, &s, size, a, b);
}
HANDLERS_SYNCED(scas)

/* INS, OUTS: ports in DX. */
ALWAYS_INLINE enum status ins(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, false, true)
	uint64_t to;
	uint32_t port = (uint32_t)reg_get(c, RDX, 2);
	TRY(port_check(c, port, size));
	TRY(linear(c, ES, c->s.gpr[RDI] & s.mask, size, true, &to));
	TRY(access_probe_write(c, to, size, false));
	TRY(mem_store(c, op, to, size, port_in(c, port, size)));
	pointer_advance(c, &s, RDI);
	return string_end(c, op, &s, true);
}
HANDLERS_SYNCED(ins)

ALWAYS_INLINE enum status outs(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	STRING_BEGIN(s, true, false)
	uint64_t from, value;
	uint32_t port = (uint32_t)reg_get(c, RDX, 2);
	TRY(port_check(c, port, size));
	TRY(linear(c, op->segment, c->s.gpr[RSI] & s.mask, size, false, &from));
	TRY(mem_load(c, op, from, size, &value));
	pointer_advance(c, &s, RSI);
	port_out(c, port, size, value); /* a CPU that waits from now on is seen to do so */
	return string_end(c, op, &s, true);
}
HANDLERS_SYNCED(outs)
