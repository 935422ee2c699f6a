/* System instructions, fences, I/O and tracepoints. SDM vol. 2 and 3; docs/platform.md for ports and tracepoints. */
#include "device.h"
#include "exec.h"
#include "mmu.h"
#include "operand.h"
#include "segment.h"
#include "tlb.h"

enum status exec_undefined(struct cpu *c, const struct op *op)
{
	c->fault = (struct fault){.vector = VECTOR_UD, .addr = (uint64_t)op->immediate};
	return STATUS_FAULT;
}

enum status exec_too_long(struct cpu *c, const struct op *op)
{
	(void)op;
	return fault_raise_error(c, VECTOR_GP, 0);
}

static enum status require_supervisor(struct cpu *c)
{
	return cpu_privilege(c) ? fault_raise_error(c, VECTOR_GP, 0) : STATUS_OK;
}

/* A plain long NOP, unless its displacement says that it is a tracepoint. */
ALWAYS_INLINE enum status nop_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	if (!memory || (uint32_t)op->displacement >> 16 != TRACE_MAGIC || !(op->displacement & 0xffff))
		return STATUS_OK;
	uint32_t identifier = op->displacement & 0xffff;
	tap_event(c, EVENT_trace, c->s.gpr[op->index], identifier, c->s.gpr[op->base], 0, 0);
	return identifier == c->machine->stop_at_trace ? STATUS_TRACE : STATUS_OK;
}
HANDLERS(nop_e)

ALWAYS_INLINE enum status fence(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	/* MFENCE waits for the buffer (its row says `drain`); LFENCE and SFENCE order nothing in this model. */
	uint32_t which = op->reg == 6 ? 0 : op->reg == 5 ? 1 : 2;
	tap_event(c, EVENT_fence, 0, 0, 0, 0, which);
	return STATUS_OK;
}
HANDLERS(fence)

ALWAYS_INLINE enum status nothing(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)c;
	(void)op;
	(void)size;
	(void)memory;
	return STATUS_OK;
}
HANDLERS(nothing)

ALWAYS_INLINE enum status hlt(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	tap_event(c, EVENT_halt, 0, 0, 0, 0, 0);
	c->s.waiting = WAIT_HALT;
	return STATUS_STOP;
}
HANDLERS(hlt)

/* WBINVD, INVD: caches are not modelled. */
ALWAYS_INLINE enum status wbinvd(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return require_supervisor(c);
}
HANDLERS(wbinvd)

ALWAYS_INLINE enum status clts(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	c->s.cr0 &= ~UINT64_C(8);
	return STATUS_OK;
}
HANDLERS(clts)

/* SGDT, SIDT */
ALWAYS_INLINE enum status store_table(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	bool global = op->reg == 0;
	uint64_t addr;
	TRY(op_address(c, op, 6, true, &addr));
	TRY(access_probe_write(c, addr, 6, false));
	TRY(mem_store(c, addr, 2, global ? c->s.gdt_limit : c->s.idt_limit));
	return mem_store(c, (addr + 2) & 0xffffffff, 4, global ? c->s.gdt_base : c->s.idt_base);
}
HANDLERS(store_table)

/* LGDT, LIDT */
ALWAYS_INLINE enum status load_table(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t addr, limit, base;
	TRY(require_supervisor(c));
	TRY(op_address(c, op, 6, false, &addr));
	TRY(mem_load(c, addr, 2, &limit));
	TRY(mem_load(c, (addr + 2) & 0xffffffff, 4, &base));
	if (size == 2)
		base &= 0xffffff;
	if (op->reg == 2) {
		c->s.gdt_base = base;
		c->s.gdt_limit = (uint32_t)limit;
	} else {
		c->s.idt_base = base;
		c->s.idt_limit = (uint32_t)limit;
	}
	return STATUS_OK;
}
HANDLERS(load_table)

/* SLDT, STR */
ALWAYS_INLINE enum status store_selector(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint16_t selector = op->reg == 0 ? c->s.ldtr.selector : c->s.tr.selector;
	return memory ? e_set(c, op, 2, true, selector) : e_set(c, op, size, false, selector);
}
HANDLERS(store_selector)

ALWAYS_INLINE enum status lldt(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t selector, descriptor;
	TRY(require_supervisor(c));
	TRY(e_get(c, op, 2, memory, &selector));
	if (!(selector & 0xfffc)) {
		c->s.ldtr = (struct segment_register){.selector = (uint16_t)selector};
		return STATUS_OK;
	}
	if (selector & 4)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	TRY(descriptor_read(c, (uint16_t)selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode((uint16_t)selector, descriptor);
	if ((s.type & 0x1f) != DESCRIPTOR_LDT)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	c->s.ldtr = s;
	return STATUS_OK;
}
HANDLERS(lldt)

ALWAYS_INLINE enum status ltr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t selector, descriptor;
	TRY(require_supervisor(c));
	TRY(e_get(c, op, 2, memory, &selector));
	if (!(selector & 0xfffc) || selector & 4)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	TRY(descriptor_read(c, (uint16_t)selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode((uint16_t)selector, descriptor);
	if ((s.type & 0x1f) != DESCRIPTOR_TSS_AVAILABLE)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	uint64_t type_addr = (c->s.gdt_base + (selector & 0xfff8) + 5) & 0xffffffff;
	s.type = (uint8_t)((s.type & 0xe0) | DESCRIPTOR_TSS_BUSY);
	TRY(access_store_slow(c, type_addr, 1, s.type, EVENT_IMPLICIT | EVENT_LOCKED));
	c->s.tr = s;
	return STATUS_OK;
}
HANDLERS(ltr)

ALWAYS_INLINE enum status invlpg(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	/* No segment limit applies (SDM: INVLPG); the base does. */
	tlb_invalidate_page(c, (c->s.segment[op->segment].base + op_offset(c, op)) & 0xffffffff);
	return STATUS_OK;
}
HANDLERS(invlpg)

ALWAYS_INLINE enum status mov_r_cr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	uint64_t value;
	switch (op->reg) {
	case 0: value = c->s.cr0; break;
	case 2: value = c->s.cr2; break;
	case 3: value = c->s.cr3; break;
	default: value = c->s.cr4; break; /* the table has no rows for others */
	}
	reg_set(c, op->rm, 4, value);
	return STATUS_OK;
}
HANDLERS(mov_r_cr)

ALWAYS_INLINE enum status mov_cr_r(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	uint64_t value = reg_get(c, op->rm, 4);
	/* CR4 bits this machine knows; others are reserved and fault, as on a CPU without the feature. */
	uint64_t cr4_known = CR4_PSE | CR4_PGE;
	if (op->reg == 4 && value & ~cr4_known)
		return fault_raise_error(c, VECTOR_GP, 0);
	/* Paging needs protection; and real mode, which PE = 0 would enter, does not exist here. */
	if (op->reg == 0 && !(value & CR0_PE))
		return fault_raise_error(c, VECTOR_GP, 0);
	tap_event(c, EVENT_control, 0, 0, value, 4, op->reg);
	switch (op->reg) {
	case 0: {
		uint64_t changed = c->s.cr0 ^ value;
		c->s.cr0 = value | CR0_ET;
		if (changed & (CR0_PG | CR0_WP | CR0_PE))
			tlb_invalidate_all(c, true);
		break;
	}
	case 2: c->s.cr2 = value; break;
	case 3:
		c->s.cr3 = value;
		tlb_invalidate_all(c, !(c->s.cr4 & CR4_PGE));
		break;
	default: {
		uint64_t changed = c->s.cr4 ^ value;
		c->s.cr4 = value;
		if (changed)
			tlb_invalidate_all(c, true);
		break;
	}
	}
	return STATUS_OK;
}
HANDLERS(mov_cr_r)

ALWAYS_INLINE enum status mov_e_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint16_t selector = c->s.segment[op->reg].selector;
	return memory ? e_set(c, op, 2, true, selector) : e_set(c, op, size, false, selector);
}
HANDLERS(mov_e_s)

static void shadow_after_stack_load(struct cpu *c, uint32_t segment)
{
	if (segment == SS)
		c->s.shadow_mark = c->s.retired + 1;
}

ALWAYS_INLINE enum status mov_s_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t selector;
	TRY(e_get(c, op, 2, memory, &selector));
	TRY(segment_load(c, op->reg, (uint16_t)selector));
	shadow_after_stack_load(c, op->reg);
	return STATUS_OK;
}
HANDLERS(mov_s_e)

/* The segment register in the opcodes of PUSH and POP: 06/07, 0E, 16/17, 1E/1F, 0F A0/A1, 0F A8/A9. */
ALWAYS_INLINE uint32_t opcode_segment(const struct op *op)
{
	return op->opcode >= 0xa0 ? (op->opcode >= 0xa8 ? GS : FS) : op->opcode >> 3 & 3;
}

ALWAYS_INLINE enum status push_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return stack_push(c, size, c->s.segment[opcode_segment(op)].selector);
}
HANDLERS(push_s)

ALWAYS_INLINE enum status pop_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t selector;
	TRY(stack_peek(c, 0, 2, &selector));
	uint64_t pointer = c->s.gpr[RSP] + size;
	TRY(segment_load(c, opcode_segment(op), (uint16_t)selector));
	stack_set(c, pointer);
	shadow_after_stack_load(c, opcode_segment(op));
	return STATUS_OK;
}
HANDLERS(pop_s)

ALWAYS_INLINE enum status in_port(struct cpu *c, uint32_t size, uint32_t port)
{
	if (cpu_privilege(c) > (c->s.rflags >> 12 & 3))
		return fault_raise_error(c, VECTOR_GP, 0); /* the I/O permission bitmap is not consulted */
	reg_set(c, RAX, size, port_in(c, port, size));
	return STATUS_OK;
}

ALWAYS_INLINE enum status out_port(struct cpu *c, uint32_t size, uint32_t port)
{
	if (cpu_privilege(c) > (c->s.rflags >> 12 & 3))
		return fault_raise_error(c, VECTOR_GP, 0);
	return port_out(c, port, size, reg_get(c, RAX, size));
}

ALWAYS_INLINE enum status in_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return in_port(c, size, (uint32_t)op->immediate);
}
HANDLERS(in_i)

ALWAYS_INLINE enum status in_dx(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	return in_port(c, size, (uint32_t)reg_get(c, RDX, 2));
}
HANDLERS(in_dx)

ALWAYS_INLINE enum status out_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return out_port(c, size, (uint32_t)op->immediate);
}
HANDLERS(out_i)

ALWAYS_INLINE enum status out_dx(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	return out_port(c, size, (uint32_t)reg_get(c, RDX, 2));
}
HANDLERS(out_dx)

/* A fixed processor: family 6, with the features that exist here. */
ALWAYS_INLINE enum status cpuid(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	enum { PSE = 1 << 3, TSC = 1 << 4, CX8 = 1 << 8, APIC = 1 << 9, PGE = 1 << 13, CMOV = 1 << 15 };
	uint32_t a = 0, b = 0, cx = 0, d = 0;
	switch ((uint32_t)c->s.gpr[RAX]) {
	case 0: /* "racetape x86" */
		a = 1;
		b = 0x65636172;
		d = 0x65706174;
		cx = 0x36387820;
		break;
	case 1:
		a = 0x00000600;
		b = c->number << 24 | (CACHE_LINE_SIZE / 8) << 8;
		d = PSE | TSC | CX8 | APIC | PGE | CMOV;
		break;
	default: break;
	}
	reg_set(c, RAX, 4, a);
	reg_set(c, RBX, 4, b);
	reg_set(c, RCX, 4, cx);
	reg_set(c, RDX, 4, d);
	return STATUS_OK;
}
HANDLERS(cpuid)

/* The time stamp is the step number: the only clock there is. */
ALWAYS_INLINE enum status rdtsc(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	reg_set(c, RAX, 4, c->machine->step);
	reg_set(c, RDX, 4, c->machine->step >> 32);
	return STATUS_OK;
}
HANDLERS(rdtsc)

/* No model-specific register exists yet. */
ALWAYS_INLINE enum status msr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return fault_raise_error(c, VECTOR_GP, 0);
}
HANDLERS(msr)
