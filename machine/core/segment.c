#include "segment.h"

#include "access.h"
#include "operand.h"

struct segment_register segment_flat(uint16_t selector, bool code)
{
	return (struct segment_register){
		.limit = 0xffffffff,
		.selector = selector,
		.type = DESCRIPTOR_PRESENT | DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE | DESCRIPTOR_ACCESSED |
			(code ? DESCRIPTOR_CODE : 0),
		.flags = code ? SEGMENT_32BIT : SEGMENT_32BIT | SEGMENT_FLAT,
	};
}

static enum status descriptor_address(struct cpu *c, uint16_t selector, uint8_t vector, uint64_t *ret)
{
	bool local = selector & 4;
	uint64_t base = local ? c->s.ldtr.base : c->s.gdt_base;
	uint32_t limit = local ? c->s.ldtr.limit : c->s.gdt_limit;
	if ((local && !c->s.ldtr.type) || (selector | 7u) > limit)
		return fault_raise_error(c, vector, selector & 0xfffc);
	*ret = (base + (selector & 0xfff8)) & 0xffffffff;
	return STATUS_OK;
}

enum status descriptor_read(struct cpu *c, uint16_t selector, uint8_t vector, uint64_t *ret)
{
	uint64_t addr;
	TRY(descriptor_address(c, selector, vector, &addr));
	return access_load_slow(c, addr, 8, false, EVENT_IMPLICIT, ret);
}

enum status descriptor_mark_accessed(struct cpu *c, uint16_t selector, uint64_t descriptor)
{
	uint64_t addr, type = descriptor >> 40 & 0xff;
	if (type & DESCRIPTOR_ACCESSED)
		return STATUS_OK;
	TRY(descriptor_address(c, selector, VECTOR_GP, &addr));
	return access_store_slow(c, (addr + 5) & 0xffffffff, 1, type | DESCRIPTOR_ACCESSED, EVENT_IMPLICIT);
}

struct segment_register descriptor_decode(uint16_t selector, uint64_t descriptor)
{
	struct segment_register s = {
		.selector = selector,
		.base = (descriptor >> 16 & 0xffffff) | (descriptor >> 56 & 0xff) << 24,
		.limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000)),
		.type = (uint8_t)(descriptor >> 40),
	};
	if (descriptor >> 55 & 1)
		s.limit = s.limit << 12 | 0xfff;
	if (descriptor >> 54 & 1)
		s.flags |= SEGMENT_32BIT;
	/* Flat: any offset may be read and written, so that nothing needs checking. A code segment is never written
	 * through a flat check either: stores with a CS override take segment_check. */
	bool writable_data = (s.type & (DESCRIPTOR_CODE | DESCRIPTOR_DOWN | DESCRIPTOR_WRITABLE)) == DESCRIPTOR_WRITABLE;
	if (s.limit == 0xffffffff && writable_data && (s.type & DESCRIPTOR_SEGMENT))
		s.flags |= SEGMENT_FLAT;
	return s;
}

bool segment_allows(const struct segment_register *s, uint64_t offset, uint32_t size, bool write)
{
	bool code = s->type & DESCRIPTOR_CODE, writable = s->type & DESCRIPTOR_WRITABLE; /* of code: readable */
	if (!(s->type & DESCRIPTOR_PRESENT) || (write && code) || ((write || code) && !writable))
		return false;
	uint64_t last = offset + size - 1;
	if (code || !(s->type & DESCRIPTOR_DOWN))
		return last <= s->limit;
	uint64_t top = s->flags & SEGMENT_32BIT ? 0xffffffff : 0xffff;
	return offset > s->limit && last <= top;
}

enum status segment_check(struct cpu *c, uint32_t segment, uint64_t offset, uint32_t size, bool write)
{
	if (segment_allows(&c->s.segment[segment], offset, size, write))
		return STATUS_OK;
	return fault_raise_error(c, segment == SS ? VECTOR_SS : VECTOR_GP, 0);
}

enum status stack_probe(struct cpu *c, uint32_t size, uint32_t count)
{
	uint64_t pointer = c->s.gpr[RSP], addr;
	for (uint32_t i = 0; i < count; i++) {
		pointer = (pointer - size) & stack_mask(c);
		TRY(linear(c, SS, pointer, size, true, &addr));
		TRY(access_probe_write(c, addr, size, false));
	}
	return STATUS_OK;
}

static enum status load_stack(struct cpu *c, uint16_t selector)
{
	uint64_t descriptor;
	if (!(selector & 0xfffc))
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(descriptor_read(c, selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode(selector, descriptor);
	uint32_t privilege = cpu_privilege(c);
	bool writable_data = (s.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_WRITABLE)) ==
			     (DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE);
	if ((selector & 3) != privilege || (s.type >> 5 & 3) != privilege || !writable_data)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_SS, selector & 0xfffc);
	TRY(descriptor_mark_accessed(c, selector, descriptor));
	c->s.segment[SS] = s;
	return STATUS_OK;
}

enum status segment_load(struct cpu *c, uint32_t segment, uint16_t selector)
{
	uint64_t descriptor;
	assert(segment < SEGMENT_COUNT && segment != CS);
	if (segment == SS)
		return load_stack(c, selector);
	if (!(selector & 0xfffc)) {
		c->s.segment[segment] = (struct segment_register){.selector = selector};
		return STATUS_OK;
	}
	TRY(descriptor_read(c, selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode(selector, descriptor);
	uint32_t dpl = s.type >> 5 & 3, rpl = selector & 3, privilege = cpu_privilege(c);
	bool code = s.type & DESCRIPTOR_CODE;
	bool conforming = code && (s.type & DESCRIPTOR_DOWN);
	if (!(s.type & DESCRIPTOR_SEGMENT) || (code && !(s.type & DESCRIPTOR_WRITABLE)) ||
	    (!conforming && (rpl > dpl || privilege > dpl)))
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	TRY(descriptor_mark_accessed(c, selector, descriptor));
	c->s.segment[segment] = s;
	return STATUS_OK;
}

void segment_set_code(struct cpu *c, const struct segment_register *code)
{
	c->s.segment[CS] = *code;
	c->fast = c->fast_rows[cpu_privilege(c) == 3];
	c->fetch_valid = false;
}

enum status segment_check_code(struct cpu *c, uint16_t selector, uint32_t privilege, bool is_return,
			       struct segment_register *ret)
{
	uint64_t descriptor;
	if (!(selector & 0xfffc))
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(descriptor_read(c, selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode(selector, descriptor);
	uint32_t dpl = s.type >> 5 & 3, rpl = selector & 3;
	bool conforming = s.type & DESCRIPTOR_DOWN;
	bool code = (s.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE)) == (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE);
	/* Gates and tasks as far targets are not supported: they fault as a bad type does. */
	if (!code || (conforming ? dpl > privilege : dpl != privilege) || (!is_return && !conforming && rpl > privilege))
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	TRY(descriptor_mark_accessed(c, selector, descriptor));
	s.selector = (uint16_t)((selector & 0xfffc) | privilege);
	*ret = s;
	return STATUS_OK;
}

enum status segment_load_code(struct cpu *c, uint16_t selector, uint32_t privilege, bool is_return)
{
	struct segment_register s;
	TRY(segment_check_code(c, selector, privilege, is_return, &s));
	segment_set_code(c, &s);
	return STATUS_OK;
}

void segments_drop_inner(struct cpu *c)
{
	static const uint8_t data[] = {ES, DS, FS, GS};
	uint32_t privilege = cpu_privilege(c);
	for (size_t i = 0; i < sizeof(data); i++) {
		struct segment_register *s = &c->s.segment[data[i]];
		if (!s->type)
			continue; /* null already, with whatever RPL */
		bool conforming = (s->type & (DESCRIPTOR_CODE | DESCRIPTOR_DOWN)) == (DESCRIPTOR_CODE | DESCRIPTOR_DOWN);
		if (!conforming && (uint32_t)(s->type >> 5 & 3) < privilege)
			*s = (struct segment_register){0};
	}
}
