/* Jumps, calls, returns, interrupts and flag instructions. SDM vol. 2. */
#include "exec.h"
#include "interrupt.h"
#include "operand.h"
#include "segment.h"

/* Where a relative jump of this operand size goes. */
ALWAYS_INLINE uint64_t relative_target(const struct cpu *c, const struct op *op, uint32_t size)
{
	return (op_rip_next(c, op) + (uint64_t)op->immediate) & size_mask(size);
}

/* A near jump may not leave the code segment, or go to an address that is not canonical. */
ALWAYS_INLINE bool target_allowed(const struct cpu *c, uint64_t target, uint32_t size)
{
	return size == 8 ? address_canonical(target) : target <= c->code_limit;
}

static enum status target_fault(struct cpu *c)
{
	return fault_raise_error(c, VECTOR_GP, 0);
}

#define TRY_TARGET(target) TRY_STOP(likely(target_allowed(c, target, size)) ? STATUS_OK : target_fault(c))

/* A linked jump goes to the page it comes from, which the code segment covers whole: see decode_physical. */
ALWAYS_INLINE enum status jmp_j(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	const struct op *next = chain_follow(c, op, op->number + 1u);
	if (likely(next))
		return chain_enter(c, next);
	uint64_t target = relative_target(c, op, size);
	TRY_TARGET(target);
	return chain_lookup(c, op, op->number + 1u, target, true);
}
HANDLERS_BRANCH(jmp_j)

ALWAYS_INLINE enum status jump_if(struct cpu *c, const struct op *op, uint32_t size, bool taken)
{
	return taken ? jmp_j(c, op, size, false) : chain_next(c, op);
}

/* A handler for each condition: the condition is the one thing a branch handler is about. */
#define JCC(code)                                                                                      \
	ALWAYS_INLINE enum status jcc_##code(struct cpu *c, const struct op *op, uint32_t size, bool memory) \
	{                                                                                              \
		(void)memory;                                                                          \
		return jump_if(c, op, size, condition(c, 0x##code));                                   \
	}                                                                                              \
	HANDLERS_BRANCH(jcc_##code)

JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(a) JCC(b) JCC(c) JCC(d) JCC(e) JCC(f)

ALWAYS_INLINE enum status jcxz(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return jump_if(c, op, size, !(c->s.gpr[RCX] & op->address_mask));
}
HANDLERS_BRANCH(jcxz)

/* LOOPNE (E0), LOOPE (E1), LOOP (E2) */
ALWAYS_INLINE enum status loop(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t mask = op->address_mask, count = (c->s.gpr[RCX] - 1) & mask;
	bool go = count && (op->opcode == 0xe2 || flag_zf(c) == (op->opcode == 0xe1));
	if (go)
		TRY_TARGET(relative_target(c, op, size));
	uint64_t kept = mask == 0xffff ? c->s.gpr[RCX] & ~mask : 0;
	c->s.gpr[RCX] = kept | count;
	return jump_if(c, op, size, go);
}
HANDLERS_BRANCH(loop)

ALWAYS_INLINE enum status jmp_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t target;
	TRY_STOP(e_get(c, op, size, memory, &target));
	TRY_TARGET(target);
	return chain_lookup(c, op, op->number + 1u, target, false);
}
HANDLERS_BRANCH(jmp_e)

ALWAYS_INLINE enum status call_j(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t target = relative_target(c, op, size);
	if (!op->link)
		TRY_TARGET(target);
	TRY_STOP(stack_push(c, op, size, op_rip_next(c, op) & size_mask(size)));
	const struct op *next = chain_follow(c, op, op->number + 1u);
	return likely(next) ? chain_enter(c, next) : chain_lookup(c, op, op->number + 1u, target, true);
}
HANDLERS_BRANCH(call_j)

ALWAYS_INLINE enum status call_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t target;
	TRY_STOP(e_get(c, op, size, memory, &target));
	TRY_TARGET(target);
	TRY_STOP(stack_push(c, op, size, op_rip_next(c, op) & size_mask(size)));
	return chain_lookup(c, op, op->number + 1u, target, false);
}
HANDLERS_BRANCH(call_e)

ALWAYS_INLINE enum status ret(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t target;
	TRY_STOP(stack_peek(c, op, 0, size, &target));
	TRY_TARGET(target);
	stack_drop(c, size + (uint32_t)op->immediate); /* the immediate is 0 in the form without one */
	return chain_lookup(c, op, op->number + 1u, target, false);
}
HANDLERS_BRANCH(ret)

static enum status far_jump(struct cpu *c, uint16_t selector, uint64_t offset)
{
	struct segment_register code;
	TRY(segment_check_code(c, selector, cpu_privilege(c), false, &code));
	TRY(segment_check_target(c, &code, offset));
	segment_set_code(c, &code);
	c->s.rip = offset;
	return STATUS_OK;
}

static enum status far_call(struct cpu *c, const struct op *op, uint32_t size, uint16_t selector, uint64_t offset)
{
	uint16_t old_selector = c->s.segment[CS].selector;
	uint64_t pointer = c->s.gpr[RSP], rip = c->s.rip & size_mask(size);
	struct segment_register code;
	/* The new code segment is checked before the stack. */
	TRY(segment_check_code(c, selector, cpu_privilege(c), false, &code));
	TRY(segment_check_target(c, &code, offset));
	enum status status = stack_probe(c, size, 2);
	if (status == STATUS_OK)
		status = stack_push(c, op, size, old_selector);
	if (status == STATUS_OK)
		status = stack_push(c, op, size, rip);
	if (status != STATUS_OK) {
		c->s.gpr[RSP] = pointer;
		return status;
	}
	segment_set_code(c, &code);
	c->s.rip = offset;
	return STATUS_OK;
}

ALWAYS_INLINE enum status jmp_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	return far_jump(c, op->selector, (uint64_t)op->immediate);
}
HANDLERS_SYNCED(jmp_far)

ALWAYS_INLINE enum status call_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return far_call(c, op, size, op->selector, (uint64_t)op->immediate);
}
HANDLERS_SYNCED(call_far)

ALWAYS_INLINE enum status far_pointer(struct cpu *c, const struct op *op, uint32_t size, uint64_t *offset, uint64_t *selector)
{
	uint64_t addr;
	TRY(op_address(c, op, size + 2, false, &addr));
	TRY(mem_load(c, op, addr, size, offset));
	return mem_load(c, op, (addr + size) & c->linear_mask, 2, selector);
}

ALWAYS_INLINE enum status jmp_far_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(far_pointer(c, op, size, &offset, &selector));
	return far_jump(c, (uint16_t)selector, offset);
}
HANDLERS_SYNCED(jmp_far_m)

ALWAYS_INLINE enum status call_far_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(far_pointer(c, op, size, &offset, &selector));
	return far_call(c, op, size, (uint16_t)selector, offset);
}
HANDLERS_SYNCED(call_far_m)

/* The part RETF and IRET share: CS:RIP is known, `above` bytes of frame lie below a possible SS:RSP. IRET in 64-bit code
 * takes SS:RSP from the frame always, the others on a return to an outer privilege. */
static enum status far_return(struct cpu *c, const struct op *op, uint32_t size, uint16_t selector, uint64_t offset,
			      uint32_t above, uint32_t release, bool takes_stack)
{
	uint32_t privilege = cpu_privilege(c), target = selector & 3;
	struct segment_register code, ss;
	if (target < privilege)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	/* The code segment is checked before the rest of the frame is read, with the inner privilege still. */
	TRY(segment_check_code(c, selector, target, true, &code));
	if (target == privilege && !takes_stack) {
		TRY(segment_check_target(c, &code, offset));
		stack_drop(c, above + release);
		segment_set_code(c, &code);
		c->s.rip = offset;
		return STATUS_OK;
	}
	uint64_t pointer, stack;
	TRY(stack_peek(c, op, above + release, size, &pointer));
	TRY(stack_peek(c, op, above + release + size, size, &stack));
	TRY(segment_check_stack(c, (uint16_t)stack, target, code.flags & SEGMENT_64BIT, &ss));
	TRY(segment_check_target(c, &code, offset));
	segment_set_code(c, &code);
	c->s.segment[SS] = ss;
	cpu_update_mode(c);
	if (c->bits == 64)
		c->s.gpr[RSP] = pointer + release;
	else
		stack_set(c, pointer + release);
	c->s.rip = offset;
	if (target != privilege)
		segments_drop_inner(c);
	return STATUS_OK;
}

ALWAYS_INLINE enum status ret_far(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector;
	TRY(stack_peek(c, op, 0, size, &offset));
	TRY(stack_peek(c, op, size, size, &selector));
	return far_return(c, op, size, (uint16_t)selector, offset, 2 * size, (uint32_t)op->immediate, false);
}
HANDLERS_SYNCED(ret_far)

/* What POPF and IRET may change depends on the privilege they run at. */
static void flags_pop(struct cpu *c, uint64_t value, uint32_t size, uint32_t privilege, bool resume)
{
	uint64_t change = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
	uint32_t iopl = c->s.rflags >> 12 & 3;
	if (size != 2)
		change |= FLAG_AC | FLAG_ID | (resume ? FLAG_RF : 0);
	if (privilege == 0)
		change |= FLAG_IOPL;
	if (privilege <= iopl)
		change |= FLAG_IF;
	flags_set(c, (flags_get(c) & ~change & ~(uint64_t)FLAG_RF) | (value & change));
	cpu_update_mode(c); /* TF and AC */
}

ALWAYS_INLINE enum status pushf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return stack_push(c, op, size, flags_get(c) & size_mask(size) & ~(uint64_t)(FLAG_RF | FLAG_VM));
}
HANDLERS(pushf)

ALWAYS_INLINE enum status popf(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t value;
	TRY(stack_peek(c, op, 0, size, &value));
	stack_drop(c, size);
	flags_pop(c, value, size, cpu_privilege(c), false);
	return STATUS_OK;
}
HANDLERS_SYNCED(popf)

ALWAYS_INLINE enum status iret(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t offset, selector, flags;
	/* Task returns (NT) and returns to virtual-8086 mode are not supported. */
	if (c->s.rflags & FLAG_NT)
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(stack_peek(c, op, 0, size, &offset));
	TRY(stack_peek(c, op, size, size, &selector));
	TRY(stack_peek(c, op, 2 * size, size, &flags));
	if (flags & FLAG_VM && size == 4 && !cpu_long_mode(c) && !cpu_privilege(c))
		return fault_raise_error(c, VECTOR_GP, 0);
	uint32_t privilege = cpu_privilege(c);
	TRY(far_return(c, op, size, (uint16_t)selector, offset, 3 * size, 0, c->bits == 64));
	flags_pop(c, flags, size, privilege, true);
	c->resume_loaded = true;
	c->s.nmi_blocked = 0;
	tap_event(c, EVENT_iret, offset, 0, 0, 0, 0);
	return STATUS_OK;
}
HANDLERS_SYNCED(iret)

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
HANDLERS_SYNCED(int_i)

ALWAYS_INLINE enum status int3(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return software_interrupt(c, VECTOR_BP);
}
HANDLERS_SYNCED(int3)

ALWAYS_INLINE enum status into(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return flag_of(c) ? software_interrupt(c, VECTOR_OF) : STATUS_OK;
}
HANDLERS_SYNCED(into)

/* INT1 (F1): a debug trap as if from outside the program, with no privilege asked of the gate. */
ALWAYS_INLINE enum status int1(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	tap_event(c, EVENT_soft_interrupt, 0, 0, 0, 0, VECTOR_DB);
	c->s.dr[7] &= ~(uint64_t)DR7_GD;
	return interrupt_deliver(c, VECTOR_DB, SOURCE_TRAP, false, 0);
}
HANDLERS_SYNCED(int1)

/* BOUND: a signed index against the pair of bounds in memory. */
ALWAYS_INLINE enum status bound_g_m(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t addr, low, high;
	TRY(op_address(c, op, 2 * size, false, &addr));
	TRY(mem_load(c, op, addr, size, &low));
	TRY(mem_load(c, op, (addr + size) & c->linear_mask, size, &high));
	int64_t index = sign_extend(reg_get(c, op->reg, size), size);
	if (index < sign_extend(low, size) || index > sign_extend(high, size))
		return fault_raise(c, VECTOR_BR);
	return STATUS_OK;
}
HANDLERS_SYNCED(bound_g_m)

ALWAYS_INLINE enum status ud2(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	c->fault = (struct fault){.vector = VECTOR_UD, .addr = 0x0b0f};
	return STATUS_FAULT;
}
HANDLERS_SYNCED(ud2)

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
HANDLERS_SYNCED(sti)
