#include "segment.h"

#include "access.h"
#include "operand.h"
#include "visible.h"

struct segment_register segment_fixed(uint16_t selector, bool code, uint32_t privilege, uint32_t bits)
{
	return (struct segment_register){
		.limit = 0xffffffff,
		.selector = selector,
		.type = (uint8_t)(DESCRIPTOR_PRESENT | DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE | DESCRIPTOR_ACCESSED |
				  (code ? DESCRIPTOR_CODE : 0) | privilege << 5),
		.flags = code ? (bits == 64 ? SEGMENT_64BIT : bits == 32 ? SEGMENT_32BIT : 0) : SEGMENT_32BIT | SEGMENT_FLAT,
	};
}

struct segment_register segment_flat(uint16_t selector, bool code)
{
	return segment_fixed(selector, code, selector & 3, 32);
}

struct segment_register segment_null(uint16_t selector)
{
	return (struct segment_register){.selector = selector};
}

/* Descriptor tables are anywhere in the 64-bit space while long mode is active, also for 32-bit code. */
static uint64_t system_mask(const struct cpu *c)
{
	return cpu_long_mode(c) ? ~UINT64_C(0) : 0xffffffff;
}

static enum status descriptor_address(struct cpu *c, uint16_t selector, uint8_t vector, uint64_t *ret)
{
	bool local = selector & 4;
	uint64_t base = local ? c->s.ldtr.base : c->s.gdt_base;
	uint32_t limit = local ? c->s.ldtr.limit : c->s.gdt_limit;
	if ((local && !c->s.ldtr.type) || (selector | 7u) > limit)
		return fault_raise_error(c, vector, selector & 0xfffc);
	*ret = (base + (selector & 0xfff8)) & system_mask(c);
	return STATUS_OK;
}

enum status descriptor_read(struct cpu *c, uint16_t selector, uint8_t vector, uint64_t *ret)
{
	uint64_t addr;
	TRY(descriptor_address(c, selector, vector, &addr));
	return access_load_implicit(c, addr, 8, ret);
}

enum status descriptor_mark_accessed(struct cpu *c, uint16_t selector, uint64_t descriptor)
{
	uint64_t addr, type = descriptor >> 40 & 0xff;
	if (type & DESCRIPTOR_ACCESSED)
		return STATUS_OK;
	TRY(descriptor_address(c, selector, VECTOR_GP, &addr));
	visible_save_stores(c);
	return access_store_slow(c, (addr + 5) & system_mask(c), 1, type | DESCRIPTOR_ACCESSED, EVENT_IMPLICIT);
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
	if (descriptor >> 53 & 1 && s.type & DESCRIPTOR_CODE)
		s.flags |= SEGMENT_64BIT;
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

enum status descriptor_read_system(struct cpu *c, uint16_t selector, uint64_t descriptor, struct segment_register *ret)
{
	*ret = descriptor_decode(selector, descriptor);
	ret->flags = 0;
	if (!cpu_long_mode(c))
		return STATUS_OK;
	uint64_t addr, upper;
	bool local = selector & 4;
	if ((selector | 7u) + 8u > (local ? c->s.ldtr.limit : c->s.gdt_limit))
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	TRY(descriptor_address(c, (uint16_t)(selector + 8), VECTOR_GP, &addr));
	TRY(access_load_implicit(c, addr, 8, &upper));
	ret->base |= upper << 32;
	if (upper >> 40 & 0x1f || !address_canonical(ret->base))
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	return STATUS_OK;
}

enum status segment_check(struct cpu *c, uint32_t segment, uint64_t offset, uint32_t size, bool write)
{
	if (segment_allows(&c->s.segment[segment], offset, size, write))
		return STATUS_OK;
	return fault_raise_error(c, segment == SS ? VECTOR_SS : VECTOR_GP, 0);
}

enum status segment_check_target(struct cpu *c, const struct segment_register *code, uint64_t offset)
{
	bool valid = cpu_long_mode(c) && code->flags & SEGMENT_64BIT ? address_canonical(offset) : offset <= code->limit;
	return valid ? STATUS_OK : fault_raise_error(c, VECTOR_GP, 0);
}

enum status stack_probe(struct cpu *c, uint32_t size, uint32_t count)
{
	uint64_t pointer = c->s.gpr[RSP], addr;
	visible_save_stores(c);
	for (uint32_t i = 0; i < count; i++) {
		pointer = (pointer - size) & stack_mask(c);
		TRY(linear(c, SS, pointer, size, true, &addr));
		TRY(access_probe_write(c, addr, size, false));
		visible_save_memory(c, addr, size);
	}
	return STATUS_OK;
}

enum status segment_check_stack(struct cpu *c, uint16_t selector, uint32_t privilege, bool to_64bit,
				struct segment_register *ret)
{
	uint64_t descriptor;
	if (!(selector & 0xfffc)) {
		bool allowed = cpu_long_mode(c) && to_64bit && privilege != 3 && (selector & 3) == privilege;
		if (!allowed)
			return fault_raise_error(c, VECTOR_GP, 0);
		*ret = (struct segment_register){.selector = selector, .type = (uint8_t)(privilege << 5)};
		return STATUS_OK;
	}
	TRY(descriptor_read(c, selector, VECTOR_GP, &descriptor));
	struct segment_register s = descriptor_decode(selector, descriptor);
	bool writable_data = (s.type & (DESCRIPTOR_SEGMENT | DESCRIPTOR_CODE | DESCRIPTOR_WRITABLE)) ==
			     (DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE);
	if ((selector & 3) != privilege || (s.type >> 5 & 3u) != privilege || !writable_data)
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_SS, selector & 0xfffc);
	TRY(descriptor_mark_accessed(c, selector, descriptor));
	*ret = s;
	return STATUS_OK;
}

enum status segment_load(struct cpu *c, uint32_t segment, uint16_t selector)
{
	uint64_t descriptor;
	assert(segment < SEGMENT_COUNT && segment != CS);
	if (segment == SS) {
		TRY(segment_check_stack(c, selector, cpu_privilege(c), c->bits == 64, &c->s.segment[SS]));
		cpu_update_mode(c);
		return STATUS_OK;
	}
	if (!(selector & 0xfffc)) {
		c->s.segment[segment] = segment_null(selector);
		cpu_update_mode(c);
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
	cpu_update_mode(c);
	return STATUS_OK;
}

void segment_set_code(struct cpu *c, const struct segment_register *code)
{
	c->s.segment[CS] = *code;
	fetch_flush(c);
	cpu_update_mode(c);
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
	bool both_sizes = cpu_long_mode(c) && (s.flags & (SEGMENT_64BIT | SEGMENT_32BIT)) == (SEGMENT_64BIT | SEGMENT_32BIT);
	if (!code || both_sizes || (conforming ? dpl > privilege : dpl != privilege) || (!is_return && !conforming && rpl > privilege))
		return fault_raise_error(c, VECTOR_GP, selector & 0xfffc);
	if (!(s.type & DESCRIPTOR_PRESENT))
		return fault_raise_error(c, VECTOR_NP, selector & 0xfffc);
	TRY(descriptor_mark_accessed(c, selector, descriptor));
	s.selector = (uint16_t)((selector & 0xfffc) | privilege);
	*ret = s;
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
			*s = segment_null(0);
	}
	cpu_update_mode(c);
}
