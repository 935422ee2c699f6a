/* IN and OUT. SDM vol. 2; docs/platform.md for the ports. */
#include "device.h"
#include "exec.h"
#include "operand.h"
#include "segment.h"
#include "visible.h"

/* The I/O permission bitmap of the TSS, for those whom IOPL does not let through (SDM vol. 1, 19.5.2). */
enum status port_check(struct cpu *c, uint32_t port, uint32_t size)
{
	if (cpu_privilege(c) <= (c->s.rflags >> 12 & 3))
		return STATUS_OK;
	uint64_t base, bits;
	uint32_t type = c->s.tr.type & 0x0f;
	if ((type != DESCRIPTOR_TSS_AVAILABLE && type != DESCRIPTOR_TSS_BUSY) || c->s.tr.limit < 103)
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(access_load_implicit(c, c->s.tr.base + 102, 2, &base));
	if (base + port / 8 + 1 > c->s.tr.limit)
		return fault_raise_error(c, VECTOR_GP, 0);
	TRY(access_load_implicit(c, c->s.tr.base + base + port / 8, 2, &bits));
	bool denied = bits >> port % 8 & ((1u << size) - 1);
	return denied ? fault_raise_error(c, VECTOR_GP, 0) : STATUS_OK;
}

ALWAYS_INLINE enum status in_port(struct cpu *c, uint32_t size, uint32_t port)
{
	TRY(port_check(c, port, size));
	reg_set(c, RAX, size, port_in(c, port, size));
	return STATUS_OK;
}

ALWAYS_INLINE enum status out_port(struct cpu *c, uint32_t size, uint32_t port)
{
	TRY(port_check(c, port, size));
	uint64_t value = reg_get(c, RAX, size);
	if (port_ends_run(c, port, size, value) && visible_end(c, port))
		return STATUS_VISIBLE;
	return port_out(c, port, size, value);
}

ALWAYS_INLINE enum status in_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return in_port(c, size, (uint32_t)op->immediate);
}
HANDLERS_SYNCED(in_i)

ALWAYS_INLINE enum status in_dx(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	return in_port(c, size, (uint32_t)reg_get(c, RDX, 2));
}
HANDLERS_SYNCED(in_dx)

ALWAYS_INLINE enum status out_i(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	return out_port(c, size, (uint32_t)op->immediate);
}
HANDLERS_SYNCED(out_i)

ALWAYS_INLINE enum status out_dx(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	return out_port(c, size, (uint32_t)reg_get(c, RDX, 2));
}
HANDLERS_SYNCED(out_dx)
