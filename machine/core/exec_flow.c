/* Jumps, calls, returns, interrupts and flag instructions. SDM vol. 2. */
#include "exec.h"
#include "interrupt.h"
#include "operand.h"
#include "segment.h"

ALWAYS_INLINE void jump_relative(struct cpu *c, const struct op *op, uint32_t size)
{
	c->s.rip = (c->s.rip + (uint64_t)op->immediate) & (size == 2 ? 0xffff : 0xffffffff);
}

ALWAYS_INLINE enum status jmp_j(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	jump_relative(c, op, size);
	return STATUS_OK;
}
HANDLERS(jmp_j)

/* A handler for each condition: the condition is the one thing a branch handler is about. */
#define JCC(code)                                                                                      \
	ALWAYS_INLINE enum status jcc_##code(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                              \
		(void)memory;                                                                          \
		if (condition(c, 0x##code))                                                            \
			jump_relative(c, op, size);                                                    \
		return STATUS_OK;                                                                      \
	}                                                                                              \
	HANDLERS(jcc_##code)

JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(a) JCC(b) JCC(c) JCC(d) JCC(e) JCC(f)

ALWAYS_INLINE uint64_t count_mask(const struct op *op)
{
	return op->address_size == 2 ? 0xffff : 0xffffffff;
}

ALWAYS_INLINE enum status jcxz(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	if (!(c->s.gpr[RCX] & count_mask(op)))
		jump_relative(c, op, size);
	return STATUS_OK;
}
HANDLERS(jcxz)

/* LOOPNE (E0), LOOPE (E1), LOOP (E2) */
ALWAYS_INLINE enum status loop(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t mask = count_mask(op), count = (c->s.gpr[RCX] - 1) & mask;
	c->s.gpr[RCX] = (c->s.gpr[RCX] & ~mask & 0xffffffff) | count;
	bool go = op->opcode == 0xe2 || flag_zf(c) == (op->opcode == 0xe1);
	if (count && go)
		jump_relative(c, op, size);
	return STATUS_OK;
}
HANDLERS(loop)

ALWAYS_INLINE enum status jmp_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t target;
	TRY(e_get(c, op, size, memory, &target));
	c->s.rip = target;
	return STATUS_OK;
}
HANDLERS(jmp_e)

ALWAYS_INLINE enum status call_j(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	TRY(stack_push(c, size, c->s.rip & size_mask(size)));
	jump_relative(c, op, size);
	return STATUS_OK;
}
HANDLERS(call_j)

ALWAYS_INLINE enum status call_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t target;
	TRY(e_get(c, op, size, memory, &target));
	TRY(stack_push(c, size, c->s.rip & size_mask(size)));
	c->s.rip = target;
	return STATUS_OK;
}
HANDLERS(call_e)

ALWAYS_INLINE enum status ret(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t target;
	TRY(stack_peek(c, 0, size, &target));
	stack_drop(c, size + (uint32_t)op->immediate); /* the immediate is 0 in the form without one */
	c->s.rip = target;
	return STATUS_OK;
}
HANDLERS(ret)

static enum status far_jump(struct cpu *c, uint16_t selector, uint64_t offset)
{
	TRY(segment_load_code(c, selector, cpu_privilege(c), false));
	c->s.rip = offset;
	return STATUS_OK;
}

static enum status far_call(struct cpu *c, uint32_t size, uint16_t selector, uint64_t offset)
{
	struct segment_register old = c->s.segment[CS];
	/* The new code segment is checked before the stack. */
	TRY(segment_load_code(c, selector, cpu_privilege(c), false));
	uint64_t pointer = c->s.gpr[RSP];
	enum status status = stack_probe(c, size, 2);
	if (status == STATUS_OK)
		status = stack_push(c, size, old.selector);
	if (status == STATUS_OK)
		status = stack_push(c, size, c->s.rip & size_mask(size));
	if (status != STATUS_OK) {
		c->s.gpr[RSP] = pointer;
		segment_set_code(c, &old);
		return status;
	}
	c->s.rip = offset;
	return STATUS_OK;
}

ALWAYS_INLINE enum status jmp_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	return far_jump(c, op->selector, (uint64_t)op->immediate);
}
HANDLERS(jmp_far)

ALWAYS_INLINE enum status call_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return far_call(c, size, op->selector, (uint64_t)op->immediate);
}
HANDLERS(call_far)

ALWAYS_INLINE enum status far_pointer(struct cpu *c, const struct op *op, uint32_t size, uint64_t *offset, uint64_t *selector)
{
	uint64_t addr;
	TRY(op_address(c, op, size + 2, false, &addr));
	TRY(mem_load(c, addr, size, offset));
	return mem_load(c, (addr + size) & 0xffffffff, 2, selector);
}

ALWAYS_INLINE enum status jmp_far_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(far_pointer(c, op, size, &offset, &selector));
	return far_jump(c, (uint16_t)selector, offset);
}
HANDLERS(jmp_far_m)

ALWAYS_INLINE enum status call_far_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(far_pointer(c, op, size, &offset, &selector));
	return far_call(c, size, (uint16_t)selector, offset);
}
HANDLERS(call_far_m)

/* The part RETF and IRET share: CS:EIP is known, `above` bytes of frame lie below a possible outer SS:ESP. */
static enum status far_return(struct cpu *c, uint32_t size, uint16_t selector, uint64_t offset, uint32_t above,
			      uint32_t release)
{
	uint32_t privilege = cpu_privilege(c), target = selector & 3;
	if (target < privilege)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (target == privilege) {
		TRY(segment_load_code(c, selector, target, true));
		stack_drop(c, above + release);
		c->s.rip = offset;
		return STATUS_OK;
	}
	/* The code segment is checked before the rest of the frame is read, with the inner privilege still. */
	uint64_t pointer, stack;
	struct segment_register old_code = c->s.segment[CS], code;
	TRY(segment_check_code(c, selector, target, true, &code));
	TRY(stack_peek(c, above + release, size, &pointer));
	TRY(stack_peek(c, above + release + size, size, &stack));
	segment_set_code(c, &code);
	enum status status = segment_load(c, SS, (uint16_t)stack);
	if (status != STATUS_OK) {
		segment_set_code(c, &old_code);
		return status;
	}
	stack_set(c, pointer + release);
	c->s.rip = offset;
	segments_drop_inner(c);
	return STATUS_OK;
}

ALWAYS_INLINE enum status ret_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(stack_peek(c, 0, size, &offset));
	TRY(stack_peek(c, size, size, &selector));
	return far_return(c, size, (uint16_t)selector, offset, 2 * size, (uint32_t)op->immediate);
}
HANDLERS(ret_far)

/* What POPF and IRET may change depends on the privilege they run at. */
static void flags_pop(struct cpu *c, uint64_t value, uint32_t size, uint32_t privilege)
{
	uint64_t change = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
	uint32_t iopl = c->s.rflags >> 12 & 3;
	if (size == 4)
		change |= FLAG_AC | FLAG_ID;
	if (privilege == 0)
		change |= FLAG_IOPL;
	if (privilege <= iopl)
		change |= FLAG_IF;
	flags_set(c, (flags_get(c) & ~change & ~(uint64_t)FLAG_RF) | (value & change));
}

ALWAYS_INLINE enum status pushf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	return stack_push(c, size, flags_get(c) & size_mask(size) & ~(uint64_t)(FLAG_RF | FLAG_VM));
}
HANDLERS(pushf)

ALWAYS_INLINE enum status popf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	uint64_t value;
	TRY(stack_peek(c, 0, size, &value));
	stack_drop(c, size);
	flags_pop(c, value, size, cpu_privilege(c));
	return STATUS_OK;
}
HANDLERS(popf)

ALWAYS_INLINE enum status iret(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	uint64_t offset, selector, flags;
	/* Task returns (NT) and returns to virtual-8086 mode are not supported. */
	if (c->s.rflags & FLAG_NT)
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(stack_peek(c, 0, size, &offset));
	TRY(stack_peek(c, size, size, &selector));
	TRY(stack_peek(c, 2 * size, size, &flags));
	if (flags & FLAG_VM && size == 4)
		return fault_raise_error(c, VECTOR_GP, 0);
	uint32_t privilege = cpu_privilege(c);
	TRY(far_return(c, size, (uint16_t)selector, offset, 3 * size, 0));
	flags_pop(c, flags, size, privilege);
	tap_event(c, EVENT_iret, offset, 0, 0, 0, 0);
	return STATUS_OK;
}
HANDLERS(iret)

static enum status software_interrupt(struct cpu *c, uint8_t vector)
{
	tap_event(c, EVENT_soft_interrupt, 0, 0, 0, 0, vector);
	return interrupt_deliver(c, vector, SOURCE_SOFTWARE, false, 0);
}

ALWAYS_INLINE enum status int_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	return software_interrupt(c, (uint8_t)op->immediate);
}
HANDLERS(int_i)

ALWAYS_INLINE enum status int3(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return software_interrupt(c, VECTOR_BP);
}
HANDLERS(int3)

ALWAYS_INLINE enum status into(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return flag_of(c) ? software_interrupt(c, VECTOR_OF) : STATUS_OK;
}
HANDLERS(into)

ALWAYS_INLINE enum status ud2(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	c->fault = (struct fault){.vector = VECTOR_UD, .addr = 0x0b0f};
	return STATUS_FAULT;
}
HANDLERS(ud2)

/* CMC F5, CLC F8, STC F9, CLD FC, STD FD */
ALWAYS_INLINE enum status flag_op(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	switch (op->opcode) {
	case 0xf5: c->s.cf ^= 1; break;
	case 0xf8: c->s.cf = 0; break;
	case 0xf9: c->s.cf = 1; break;
	case 0xfc: c->s.rflags &= ~(uint64_t)FLAG_DF; break;
	default: c->s.rflags |= FLAG_DF; break;
	}
	return STATUS_OK;
}
HANDLERS(flag_op)

ALWAYS_INLINE enum status cli(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	if (cpu_privilege(c) > (c->s.rflags >> 12 & 3))
		return fault_raise_error(c, VECTOR_GP, 0);
	c->s.rflags &= ~(uint64_t)FLAG_IF;
	return STATUS_OK;
}
HANDLERS(cli)

ALWAYS_INLINE enum status sti(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	if (cpu_privilege(c) > (c->s.rflags >> 12 & 3))
		return fault_raise_error(c, VECTOR_GP, 0);
	if (!(c->s.rflags & FLAG_IF))
		c->s.shadow_mark = c->s.retired + 1; /* the next instruction runs before any interrupt */
	c->s.rflags |= FLAG_IF;
	return STATUS_OK;
}
HANDLERS(sti)
