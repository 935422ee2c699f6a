/* Segment registers, descriptor tables, and what asks about descriptors. SDM vol. 2 and 3. */
#include "exec.h"
#include "operand.h"
#include "segment.h"

ALWAYS_INLINE enum status mov_e_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint16_t selector = c->s.segment[op->reg].selector;
	return memory ? e_set(c, op, 2, true, selector) : e_set(c, op, size, false, selector);
}
HANDLERS_PLAIN(mov_e_s)

static void shadow_after_stack_load(struct cpu *c, uint32_t segment)
{
	if (segment != SS)
		return;
	c->s.shadow_mark = c->s.retired + 1;
	c->trap_delayed = true;
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
HANDLERS_SYNCED(mov_s_e)

/* The segment register in the opcodes of PUSH and POP: 06/07, 0E, 16/17, 1E/1F, 0F A0/A1, 0F A8/A9. */
ALWAYS_INLINE uint32_t opcode_segment(const struct op *op)
{
	return op->opcode >= 0xa0 ? (op->opcode >= 0xa8 ? GS : FS) : op->opcode >> 3 & 3;
}

ALWAYS_INLINE enum status push_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return stack_push(c, op, size, c->s.segment[opcode_segment(op)].selector);
}
HANDLERS_PLAIN(push_s)

ALWAYS_INLINE enum status pop_s(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t selector;
	TRY(stack_peek(c, op, 0, size, &selector));
	uint64_t pointer = c->s.gpr[RSP] + size;
	TRY(segment_load(c, opcode_segment(op), (uint16_t)selector));
	stack_set(c, pointer);
	shadow_after_stack_load(c, opcode_segment(op));
	return STATUS_OK;
}
HANDLERS_SYNCED(pop_s)

/* SGDT, SIDT */
ALWAYS_INLINE enum status store_table(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	bool global = op->reg == 0;
	uint32_t base_size = c->bits == 64 ? 8 : 4;
	uint64_t addr;
	TRY(op_address(c, op, 2 + base_size, true, &addr));
	TRY(access_probe_write(c, addr, 2 + base_size, false));
	TRY(mem_store(c, op, addr, 2, global ? c->s.gdt_limit : c->s.idt_limit));
	return mem_store(c, op, (addr + 2) & c->linear_mask, base_size, global ? c->s.gdt_base : c->s.idt_base);
}
HANDLERS_SYNCED(store_table)

/* LGDT, LIDT */
ALWAYS_INLINE enum status load_table(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint64_t addr, limit, base;
	uint32_t base_size = c->bits == 64 ? 8 : 4;
	TRY(require_supervisor(c));
	TRY(op_address(c, op, 2 + base_size, false, &addr));
	TRY(mem_load(c, op, addr, 2, &limit));
	TRY(mem_load(c, op, (addr + 2) & c->linear_mask, base_size, &base));
	if (!address_canonical(base) && base_size == 8)
		return fault_raise_error(c, VECTOR_GP, 0);
	if (size == 2 && base_size == 4)
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
HANDLERS_SYNCED(load_table)

/* SLDT, STR */
ALWAYS_INLINE enum status store_selector(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint16_t selector = op->reg == 0 ? c->s.ldtr.selector : c->s.tr.selector;
	return memory ? e_set(c, op, 2, true, selector) : e_set(c, op, size, false, selector);
}
HANDLERS_SYNCED(store_selector)

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
	struct segment_register s;
	TRY(descriptor_read_system(c, (uint16_t)selector, descriptor, &s));
	if ((s.type & 0x1f) != DESCRIPTOR_LDT)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	c->s.ldtr = s;
	return STATUS_OK;
}
HANDLERS_SYNCED(lldt)

ALWAYS_INLINE enum status ltr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t selector, descriptor;
	TRY(require_supervisor(c));
	TRY(e_get(c, op, 2, memory, &selector));
	if (!(selector & 0xfffc) || selector & 4)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	TRY(descriptor_read(c, (uint16_t)selector, VECTOR_GP, &descriptor));
	struct segment_register s;
	TRY(descriptor_read_system(c, (uint16_t)selector, descriptor, &s));
	if ((s.type & 0x1f) != DESCRIPTOR_TSS_AVAILABLE)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	uint64_t type_addr = c->s.gdt_base + (selector & 0xfff8) + 5;
	s.type = (uint8_t)((s.type & 0xe0) | DESCRIPTOR_TSS_BUSY);
	TRY(access_store_slow(c, type_addr, 1, s.type, EVENT_IMPLICIT | EVENT_LOCKED));
	c->s.tr = s;
	return STATUS_OK;
}
HANDLERS_SYNCED(ltr)

/* ARPL: raises the RPL of the first selector to that of the second; ZF says whether it had to. */
ALWAYS_INLINE enum status arpl_e_g(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t addr, e, rpl = reg_get(c, op->reg, 2) & 3;
	TRY(e_get_for_write(c, op, 2, memory, &addr, &e));
	bool raise = (e & 3) < rpl;
	TRY(e_put(c, op, 2, memory, addr, raise ? (e & ~UINT64_C(3)) | rpl : e));
	flags_set_arithmetic(c, (flags_get(c) & ~(uint64_t)FLAG_ZF) | (raise ? FLAG_ZF : 0));
	return STATUS_OK;
}
HANDLERS_SYNCED(arpl_e_g)

/* The descriptor of a selector that LAR, LSL, VERR and VERW look at; false if they may not see it. A page fault while
 * reading it is one all the same. */
static enum status descriptor_visible(struct cpu *c, uint16_t selector, uint64_t *descriptor, bool *visible)
{
	*visible = false;
	if (!(selector & 0xfffc))
		return STATUS_OK;
	enum status status = descriptor_read(c, selector, VECTOR_GP, descriptor);
	if (status != STATUS_OK)
		return c->fault.vector == VECTOR_GP ? STATUS_OK : status;
	struct segment_register s = descriptor_decode(selector, *descriptor);
	uint32_t dpl = s.type >> 5 & 3, rpl = selector & 3, privilege = cpu_privilege(c);
	bool conforming = (s.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_DOWN)) ==
			  (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_DOWN);
	*visible = conforming || (dpl >= privilege && dpl >= rpl);
	return STATUS_OK;
}

static void zero_flag_set(struct cpu *c, bool value)
{
	flags_set_arithmetic(c, (flags_get(c) & ~(uint64_t)FLAG_ZF) | (value ? FLAG_ZF : 0));
}

/* LAR 02, LSL 03 */
ALWAYS_INLINE enum status lar_g_ew(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	uint64_t selector, descriptor = 0;
	bool visible, limit = op->opcode == 0x03, wide = cpu_long_mode(c);
	TRY(e_get(c, op, 2, memory, &selector));
	TRY(descriptor_visible(c, (uint16_t)selector, &descriptor, &visible));
	uint32_t type = descriptor >> 40 & 0x1f;
	if (visible && !(type & DESCRIPTOR_SEGMENT)) {
		/* Bit n: system type n can be looked at. LDT, TSS; LAR also call gates, and outside long mode 16-bit ones and
		 * task gates. */
		uint32_t legacy = limit ? 0x0a0e : 0x1a3e, in_long_mode = limit ? 0x0a04 : 0x1a04;
		visible = (wide ? in_long_mode : legacy) >> type & 1;
	}
	if (visible) {
		struct segment_register s = descriptor_decode((uint16_t)selector, descriptor);
		reg_set(c, op->reg, size, limit ? s.limit : descriptor >> 32 & 0x00ffff00);
	}
	zero_flag_set(c, visible);
	return STATUS_OK;
}
HANDLERS_SYNCED(lar_g_ew)

/* VERR /4, VERW /5 */
ALWAYS_INLINE enum status verify_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t selector, descriptor = 0;
	bool visible, write = op->reg == 5;
	TRY(e_get(c, op, 2, memory, &selector));
	TRY(descriptor_visible(c, (uint16_t)selector, &descriptor, &visible));
	uint32_t type = descriptor >> 40 & 0xff;
	bool code = type & DESCRIPTOR_CODE, flagged = type & DESCRIPTOR_WRITABLE;
	bool right = type & DESCRIPTOR_SEGMENT && (write ? !code && flagged : !code || flagged);
	zero_flag_set(c, visible && right);
	return STATUS_OK;
}
HANDLERS_SYNCED(verify_e)

/* LES, LDS, LSS, LFS, LGS: a far pointer into a segment register and a general one. */
ALWAYS_INLINE enum status load_far_pointer(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint32_t segment = op->opcode == 0xc4 ? ES : op->opcode == 0xc5 ? DS : op->opcode == 0xb2 ? SS
			 : op->opcode == 0xb4 ? FS : GS;
	uint64_t addr, offset, selector;
	TRY(op_address(c, op, size + 2, false, &addr));
	TRY(mem_load(c, op, addr, size, &offset));
	TRY(mem_load(c, op, (addr + size) & c->linear_mask, 2, &selector));
	TRY(segment_load(c, segment, (uint16_t)selector));
	reg_set(c, op->reg, size, offset);
	return STATUS_OK;
}
HANDLERS_SYNCED(load_far_pointer)
