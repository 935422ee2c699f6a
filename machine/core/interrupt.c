#include "interrupt.h"

#include "access.h"
#include "operand.h"
#include "segment.h"

bool interrupts_open(const struct cpu *c)
{
	return (c->s.rflags & FLAG_IF) && c->s.retired != c->s.shadow_mark &&
	       (c->s.waiting == WAIT_NONE || c->s.waiting == WAIT_HALT);
}

/* Where the handler's frame goes. */
struct stack {
	struct segment_register ss;
	uint64_t pointer;
	bool inner; /* another stack than the interrupted one */
};

static enum status stack_from_tss(struct cpu *c, uint32_t privilege, struct stack *ret)
{
	uint32_t offset = 4 + privilege * 8;
	uint64_t pointer, selector, descriptor;
	if (offset + 5 > c->s.tr.limit)
		return fault_raise_error(c, VECTOR_TS, c->s.tr.selector & 0xfffc);
	TRY(access_load_slow(c, (c->s.tr.base + offset) & 0xffffffff, 4, false, EVENT_IMPLICIT, &pointer));
	TRY(access_load_slow(c, (c->s.tr.base + offset + 4) & 0xffffffff, 2, false, EVENT_IMPLICIT, &selector));
	if (!(selector & 0xfffc))
		return fault_raise_error(c, VECTOR_TS, 0);
	TRY(descriptor_read(c, (uint16_t)selector, VECTOR_TS, &descriptor));
	ret->ss = descriptor_decode((uint16_t)selector, descriptor);
	ret->pointer = pointer;
	ret->inner = true;
	bool writable_data = (ret->ss.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_WRITABLE)) ==
			     (DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE);
	if ((selector & 3) != privilege || (ret->ss.type >> 5 & 3u) != privilege || !writable_data)
		return fault_raise_error(c, VECTOR_TS, selector & 0xfffc);
	if (!(ret->ss.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_SS, selector & 0xfffc);
	return STATUS_OK;
}

static enum status push_frame(struct cpu *c, struct stack *stack, const uint32_t *words, uint32_t count)
{
	uint64_t mask = stack->ss.flags & SEGMENT_32BIT ? 0xffffffff : 0xffff;
	for (uint32_t i = 1; i <= count && !(stack->ss.flags & SEGMENT_FLAT); i++)
		if (!segment_allows(&stack->ss, (stack->pointer - 4 * i) & mask, 4, true))
			return fault_raise_error(c, VECTOR_SS, stack->inner ? stack->ss.selector & 0xfffc : 0);
	/* All of it or nothing: a frame half pushed could not be taken back once others see it. */
	for (uint32_t i = 1; i <= count; i++)
		TRY(access_probe_write(c, stack->ss.base + ((stack->pointer - 4 * i) & mask), 4, true));
	for (uint32_t i = 0; i < count; i++) {
		stack->pointer = (stack->pointer - 4) & mask;
		TRY(access_store_slow(c, (stack->ss.base + stack->pointer) & 0xffffffff, 4, words[i], EVENT_IMPLICIT));
	}
	return STATUS_OK;
}

struct gate {
	uint16_t selector;
	uint32_t offset;
	bool masks_interrupts;
};

static enum status gate_read(struct cpu *c, uint8_t vector, enum interrupt_source source, struct gate *ret)
{
	uint32_t error = vector * 8u + 2u;
	uint64_t gate;
	if (vector * 8u + 7u > c->s.idt_limit)
		return fault_raise_error(c, VECTOR_GP, error);
	TRY(access_load_slow(c, (c->s.idt_base + vector * 8u) & 0xffffffff, 8, false, EVENT_IMPLICIT, &gate));
	uint32_t type = gate >> 40 & 0x1f;
	/* 32-bit interrupt (0E) and trap (0F) gates; task and 16-bit gates fault as a bad type does. */
	if (type != 0x0e && type != 0x0f)
		return fault_raise_error(c, VECTOR_GP, error);
	if (source == SOURCE_SOFTWARE && (gate >> 45 & 3) < cpu_privilege(c))
		return fault_raise_error(c, VECTOR_GP, error);
	if (!(gate >> 47 & 1))
		return fault_raise_error(c, VECTOR_NP, error);
	*ret = (struct gate){
		.selector = (uint16_t)(gate >> 16),
		.offset = (uint32_t)((gate & 0xffff) | (gate >> 32 & 0xffff0000)),
		.masks_interrupts = type == 0x0e,
	};
	return STATUS_OK;
}

static enum status deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error)
{
	struct gate gate;
	uint64_t descriptor;
	TRY(gate_read(c, vector, source, &gate));
	if (!(gate.selector & 0xfffc))
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(descriptor_read(c, gate.selector, VECTOR_GP, &descriptor));
	struct segment_register code = descriptor_decode(gate.selector, descriptor);
	uint32_t dpl = code.type >> 5 & 3, privilege = cpu_privilege(c);
	bool is_code = (code.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE)) == (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE);
	if (!is_code || dpl > privilege)
		return fault_raise_error(c, VECTOR_GP, gate.selector & 0xfffc);
	if (!(code.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, gate.selector & 0xfffc);
	uint32_t new_privilege = code.type & DESCRIPTOR_DOWN ? privilege : dpl;

	struct stack stack = {.ss = c->s.segment[SS], .pointer = c->s.gpr[RSP]};
	if (new_privilege < privilege)
		TRY(stack_from_tss(c, new_privilege, &stack));
	uint32_t words[6], count = 0;
	if (stack.inner) {
		words[count++] = c->s.segment[SS].selector;
		words[count++] = (uint32_t)c->s.gpr[RSP];
	}
	/* The frame of a fault has RF set, so that a breakpoint on the instruction would not hit again. */
	words[count++] = (uint32_t)flags_get(c) | (source == SOURCE_EXCEPTION && vector != VECTOR_DF ? FLAG_RF : 0);
	words[count++] = c->s.segment[CS].selector;
	words[count++] = (uint32_t)c->s.rip;
	if (has_error)
		words[count++] = error;
	TRY(push_frame(c, &stack, words, count));
	TRY(descriptor_mark_accessed(c, gate.selector, descriptor));

	if (stack.inner) {
		c->s.segment[SS] = stack.ss;
		c->s.gpr[RSP] = stack.pointer;
	} else {
		stack_set(c, stack.pointer);
	}
	code.selector = (uint16_t)((gate.selector & 0xfffc) | new_privilege);
	segment_set_code(c, &code);
	c->s.rip = gate.offset;
	c->s.rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate.masks_interrupts ? FLAG_IF : 0));
	return STATUS_OK;
}

enum status interrupt_deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error)
{
	enum status status = deliver(c, vector, source, has_error, error);
	if (status == STATUS_OK) {
		c->s.shadow_mark = UINT64_MAX; /* the shadow of STI and MOV SS ends with the instruction, also if it faults */
	} else if (source != SOURCE_SOFTWARE && c->fault.vector >= VECTOR_TS && c->fault.vector <= VECTOR_GP) {
		c->fault.error |= 1; /* EXT: not the program's own doing */
	}
	return status;
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

void exception_deliver(struct cpu *c)
{
	struct machine *m = c->machine;
	/* A benign pair is handled one after the other; each turn the class gets worse, so this ends. */
	for (int turn = 0; turn < 4; turn++) {
		struct fault fault = c->fault;
		tap_event(c, EVENT_fault, fault.addr, 0, fault.error, 0, fault.vector);
		if (fault.has_addr)
			c->s.cr2 = fault.addr;
		if (interrupt_deliver(c, fault.vector, SOURCE_EXCEPTION, fault.has_error, fault.error) == STATUS_OK)
			return;
		if (fault.vector == VECTOR_DF)
			break;
		if (c->fault.has_addr)
			c->s.cr2 = c->fault.addr; /* of a second page fault too, even if it ends as a double fault */
		if (doubles(fault.vector, c->fault.vector))
			c->fault = (struct fault){.vector = VECTOR_DF, .has_error = true};
	}
	tap_event(c, EVENT_shutdown, 0, 0, 0, 0, 0);
	m->s.shutdown = 1;
	m->s.ended = 1;
}
