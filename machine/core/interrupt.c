#include "interrupt.h"

#include "access.h"
#include "operand.h"
#include "segment.h"
#include "visible.h"

bool interrupts_open(const struct cpu *c)
{
	return (c->s.rflags & FLAG_IF) && c->s.retired != c->s.shadow_mark && !c->s.partial_count &&
	       (c->s.waiting == WAIT_NONE || c->s.waiting == WAIT_HALT);
}

bool nmi_open(const struct cpu *c)
{
	return c->s.nmi_pending && !c->s.nmi_blocked && c->s.retired != c->s.shadow_mark && !c->s.partial_count && !c->machine->s.ended &&
	       (c->s.waiting == WAIT_NONE || c->s.waiting == WAIT_HALT);
}

void nmi_accept(struct cpu *c)
{
	c->s.nmi_pending = 0;
	c->s.nmi_blocked = 1;
	if (c->s.waiting == WAIT_HALT)
		c->s.waiting = WAIT_NONE;
}

/* Where the handler's frame goes. */
struct stack {
	struct segment_register ss;
	uint64_t pointer;
	bool switched; /* another stack than the interrupted one */
};

/* From the 32-bit TSS (SDM vol. 3 figure 7-2). */
static enum status stack_from_tss_32(struct cpu *c, uint32_t privilege, struct stack *ret)
{
	uint32_t offset = 4 + privilege * 8;
	uint64_t pointer, selector, descriptor;
	if (offset + 5 > c->s.tr.limit)
		return fault_raise_error(c, VECTOR_TS, c->s.tr.selector & 0xfffc);
	TRY(access_load_implicit(c, c->s.tr.base + offset, 4, &pointer));
	TRY(access_load_implicit(c, c->s.tr.base + offset + 4, 2, &selector));
	if (!(selector & 0xfffc))
		return fault_raise_error(c, VECTOR_TS, 0);
	TRY(descriptor_read(c, (uint16_t)selector, VECTOR_TS, &descriptor));
	ret->ss = descriptor_decode((uint16_t)selector, descriptor);
	ret->pointer = pointer;
	ret->switched = true;
	bool writable_data = (ret->ss.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_WRITABLE)) ==
			     (DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE);
	if ((selector & 3) != privilege || (ret->ss.type >> 5 & 3u) != privilege || !writable_data)
		return fault_raise_error(c, VECTOR_TS, selector & 0xfffc);
	if (!(ret->ss.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_SS, selector & 0xfffc);
	return STATUS_OK;
}

/* From the 64-bit TSS (figure 7-11): `offset` is that of RSP0 to RSP2, or of IST1 to IST7. SS becomes null. */
static enum status stack_from_tss_64(struct cpu *c, uint32_t offset, uint32_t privilege, struct stack *ret)
{
	if (offset + 7 > c->s.tr.limit)
		return fault_raise_error(c, VECTOR_TS, c->s.tr.selector & 0xfffc);
	TRY(access_load_implicit(c, c->s.tr.base + offset, 8, &ret->pointer));
	if (!address_canonical(ret->pointer))
		return fault_raise_error(c, VECTOR_SS, 0);
	ret->ss = (struct segment_register){.selector = (uint16_t)privilege, .type = (uint8_t)(privilege << 5)};
	ret->switched = true;
	return STATUS_OK;
}

static enum status push_frame(struct cpu *c, struct stack *stack, const uint64_t *words, uint32_t count, uint32_t size)
{
	bool wide = size == 8;
	uint64_t mask = wide ? ~UINT64_C(0) : stack->ss.flags & SEGMENT_32BIT ? 0xffffffff : 0xffff;
	uint64_t linear_mask = wide ? ~UINT64_C(0) : 0xffffffff, base = wide ? 0 : stack->ss.base;
	for (uint32_t i = 1; i <= count && !wide && !(stack->ss.flags & SEGMENT_FLAT); i++)
		if (!segment_allows(&stack->ss, (stack->pointer - size * i) & mask, size, true))
			return fault_raise_error(c, VECTOR_SS, stack->switched ? stack->ss.selector & 0xfffc : 0);
	/* All of it or nothing: a frame half pushed could not be taken back once others see it. */
	for (uint32_t i = 1; i <= count; i++)
		TRY(access_probe_write(c, (base + ((stack->pointer - size * i) & mask)) & linear_mask, size, true));
	if (visible_room(c, count))
		return STATUS_VISIBLE;
	visible_save_stores(c);
	for (uint32_t i = 0; i < count; i++) {
		stack->pointer = (stack->pointer - size) & mask;
		TRY(access_store_slow(c, (base + stack->pointer) & linear_mask, size, words[i], EVENT_IMPLICIT | ACCESS_STACK));
	}
	return STATUS_OK;
}

struct gate {
	uint16_t selector;
	uint64_t offset;
	uint32_t stack_table; /* IST entry, 0 for none */
	bool narrow;	      /* a 16-bit gate */
	bool masks_interrupts;
};

static enum status gate_read(struct cpu *c, uint8_t vector, enum interrupt_source source, struct gate *ret)
{
	bool wide = cpu_long_mode(c);
	uint32_t error = vector * 8u + 2u, size = wide ? 16 : 8;
	uint64_t gate, upper = 0;
	if (vector * size + size - 1 > c->s.idt_limit)
		return fault_raise_error(c, VECTOR_GP, error);
	TRY(access_load_implicit(c, c->s.idt_base + vector * size, 8, &gate));
	if (wide)
		TRY(access_load_implicit(c, c->s.idt_base + vector * size + 8, 8, &upper));
	uint32_t type = gate >> 40 & 0x1f;
	/* Interrupt (xE) and trap (xF) gates, and outside long mode those of 16 bits (06, 07); task gates fault as a bad
	 * type does. */
	bool narrow = !wide && (type == 0x06 || type == 0x07);
	if (type != 0x0e && type != 0x0f && !narrow)
		return fault_raise_error(c, VECTOR_GP, error);
	if (source == SOURCE_SOFTWARE && (gate >> 45 & 3) < cpu_privilege(c))
		return fault_raise_error(c, VECTOR_GP, error);
	if (!(gate >> 47 & 1))
		return fault_raise_error(c, VECTOR_NP, error);
	*ret = (struct gate){
		.selector = (uint16_t)(gate >> 16),
		.offset = (gate & 0xffff) | (narrow ? 0 : gate >> 32 & 0xffff0000) | upper << 32,
		.stack_table = wide ? gate >> 32 & 7 : 0,
		.narrow = narrow,
		.masks_interrupts = (type & 1) == 0,
	};
	return STATUS_OK;
}

/* The handler's code segment and privilege. */
static enum status gate_check_code(struct cpu *c, const struct gate *gate, uint64_t *descriptor, struct segment_register *code,
				   uint32_t *new_privilege)
{
	if (!(gate->selector & 0xfffc))
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(descriptor_read(c, gate->selector, VECTOR_GP, descriptor));
	*code = descriptor_decode(gate->selector, *descriptor);
	uint32_t dpl = code->type >> 5 & 3, privilege = cpu_privilege(c);
	bool is_code = (code->type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE)) == (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE);
	/* In long mode handlers are 64-bit code. */
	bool wrong_size = cpu_long_mode(c) && (code->flags & (SEGMENT_64BIT | SEGMENT_32BIT)) != SEGMENT_64BIT;
	if (!is_code || dpl > privilege || wrong_size)
		return fault_raise_error(c, VECTOR_GP, gate->selector & 0xfffc);
	if (!(code->type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, gate->selector & 0xfffc);
	*new_privilege = code->type & DESCRIPTOR_DOWN ? privilege : dpl;
	return STATUS_OK;
}

/* SDM vol. 3, 6.12 (protected mode) and 6.14 (64-bit mode). */
static enum status deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error)
{
	struct gate gate;
	struct segment_register code;
	uint64_t descriptor;
	uint32_t new_privilege, privilege = cpu_privilege(c);
	bool wide = cpu_long_mode(c);
	TRY(gate_read(c, vector, source, &gate));
	TRY(gate_check_code(c, &gate, &descriptor, &code, &new_privilege));

	struct stack stack = {.ss = c->s.segment[SS], .pointer = c->s.gpr[RSP]};
	if (wide && gate.stack_table)
		TRY(stack_from_tss_64(c, 36 + (gate.stack_table - 1) * 8, new_privilege, &stack));
	else if (wide && new_privilege < privilege)
		TRY(stack_from_tss_64(c, 4 + new_privilege * 8, new_privilege, &stack));
	else if (new_privilege < privilege)
		TRY(stack_from_tss_32(c, new_privilege, &stack));
	if (stack.switched && wide && new_privilege == privilege)
		stack.ss = c->s.segment[SS]; /* an IST stack of the same privilege */
	uint64_t words[6];
	uint32_t count = 0;
	if (wide || stack.switched) {
		words[count++] = c->s.segment[SS].selector;
		words[count++] = c->s.gpr[RSP];
	}
	/* The frame of a fault has RF set, so that a breakpoint on the instruction would not hit again; and so has one
	 * between two iterations of a repeated instruction (SDM vol. 3, 17.3.1.1). */
	bool resume = (source == SOURCE_EXCEPTION && vector != VECTOR_DF) || c->s.repeating;
	words[count++] = flags_get(c) | (resume ? FLAG_RF : 0);
	words[count++] = c->s.segment[CS].selector;
	words[count++] = c->s.rip;
	if (has_error)
		words[count++] = error;
	if (wide)
		stack.pointer &= ~UINT64_C(15);
	TRY(segment_check_target(c, &code, gate.offset));
	TRY(push_frame(c, &stack, words, count, wide ? 8 : gate.narrow ? 2 : 4));
	TRY(descriptor_mark_accessed(c, gate.selector, descriptor));

	code.selector = (uint16_t)((gate.selector & 0xfffc) | new_privilege);
	c->s.segment[SS] = stack.ss;
	if (wide || stack.switched)
		c->s.gpr[RSP] = stack.pointer;
	else
		stack_set(c, stack.pointer);
	c->s.rip = gate.offset;
	c->s.repeating = 0;
	c->s.rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate.masks_interrupts ? FLAG_IF : 0));
	segment_set_code(c, &code);
	return STATUS_OK;
}

enum status interrupt_deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error)
{
	/* What comes behind an instruction, or between two, is not stopped in its midst. */
	bool asks = c->machine->watch.asks;
	c->machine->watch.asks = asks && (source == SOURCE_SOFTWARE || source == SOURCE_EXCEPTION);
	enum status status = deliver(c, vector, source, has_error, error);
	c->machine->watch.asks = asks;
	if (status == STATUS_OK) {
		c->s.shadow_mark = UINT64_MAX; /* the shadow of STI and MOV SS ends with the instruction, also if it faults */
		c->trap_armed = false;	       /* what interrupted has lost its single step: TF is saved in the frame */
	} else if (status == STATUS_FAULT && source != SOURCE_SOFTWARE && c->fault.vector >= VECTOR_TS && c->fault.vector <= VECTOR_GP) {
		c->fault.error |= 1; /* EXT: not the program's own doing */
	}
	return status;
}

void trap_deliver(struct cpu *c)
{
	tap_event(c, EVENT_fault, 0, 0, 0, 0, c->fault.vector);
	c->s.dr[7] &= ~(uint64_t)DR7_GD; /* the handler may use them (17.2.4) */
	bool asks = c->machine->watch.asks;
	c->machine->watch.asks = false;
	if (interrupt_deliver(c, c->fault.vector, SOURCE_TRAP, false, 0) != STATUS_OK)
		exception_deliver(c);
	c->machine->watch.asks = asks;
	if (c->s.waiting == WAIT_HALT)
		c->s.waiting = WAIT_NONE;
}

/* SDM vol. 3 table 6-5: which pairs make a double fault. */
static bool contributory(uint8_t vector)
{
	return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

static bool doubles(uint8_t first, uint8_t second)
{
	if (first == VECTOR_PF)
		return second == VECTOR_PF || contributory(second);
	return contributory(first) && contributory(second);
}

bool exception_deliver(struct cpu *c)
{
	struct machine *m = c->machine;
	/* A benign pair is handled one after the other; each turn the class gets worse, so this ends. */
	for (int turn = 0; turn < 4; turn++) {
		struct fault fault = c->fault;
		tap_event(c, EVENT_fault, fault.addr, 0, fault.error, 0, fault.vector);
		if (fault.has_addr)
			c->s.cr2 = fault.addr;
		enum status status = interrupt_deliver(c, fault.vector, SOURCE_EXCEPTION, fault.has_error, fault.error);
		if (status != STATUS_FAULT)
			return status == STATUS_OK;
		if (fault.vector == VECTOR_DF)
			break;
		if (c->fault.has_addr)
			c->s.cr2 = c->fault.addr; /* of a second page fault too, even if it ends as a double fault */
		if (doubles(fault.vector, c->fault.vector))
			c->fault = (struct fault){.vector = VECTOR_DF, .has_error = true};
	}
	if (visible_end(c, 0))
		return false;
	tap_event(c, EVENT_shutdown, 0, 0, 0, 0, 0);
	m->s.shutdown = 1;
	m->s.ended = 1;
	return true;
}
