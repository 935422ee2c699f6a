/* Operands of instructions: registers, effective addresses, and the macros that make a handler's size variants. */
#ifndef RACETAPE_OPERAND_H
#define RACETAPE_OPERAND_H

#include "access.h"
#include "chain.h"
#include "flags.h"
#include "op.h"

/* Returns from the enclosing handler unless `expression` is STATUS_OK. */
#define TRY(expression)                                      \
	do {                                                 \
		enum status try_status = (expression);       \
		if (unlikely(try_status != STATUS_OK))       \
			return try_status;                   \
	} while (0)

static inline enum status fault_raise(struct cpu *c, uint8_t vector)
{
	c->fault = (struct fault){.vector = vector};
	return STATUS_FAULT;
}

static inline enum status fault_raise_error(struct cpu *c, uint8_t vector, uint32_t error)
{
	c->fault = (struct fault){.vector = vector, .has_error = true, .error = error};
	return STATUS_FAULT;
}

static inline enum status require_supervisor(struct cpu *c)
{
	return cpu_privilege(c) ? fault_raise_error(c, VECTOR_GP, 0) : STATUS_OK;
}

/* Register operands. In byte instructions GPR_HIGH to GPR_HIGH + 3 are AH, CH, DH and BH. */
ALWAYS_INLINE uint64_t reg_get(const struct cpu *c, uint32_t reg, uint32_t size)
{
	switch (size) {
	case 1: return reg < GPR_HIGH ? c->s.gpr[reg] & 0xff : c->s.gpr[reg - GPR_HIGH] >> 8 & 0xff;
	case 2: return c->s.gpr[reg] & 0xffff;
	case 4: return (uint32_t)c->s.gpr[reg];
	default: return c->s.gpr[reg];
	}
}

ALWAYS_INLINE void reg_set(struct cpu *c, uint32_t reg, uint32_t size, uint64_t value)
{
	switch (size) {
	case 1:
		if (reg < GPR_HIGH)
			c->s.gpr[reg] = (c->s.gpr[reg] & ~UINT64_C(0xff)) | (value & 0xff);
		else
			c->s.gpr[reg - GPR_HIGH] = (c->s.gpr[reg - GPR_HIGH] & ~UINT64_C(0xff00)) | (value & 0xff) << 8;
		break;
	case 2: c->s.gpr[reg] = (c->s.gpr[reg] & ~UINT64_C(0xffff)) | (value & 0xffff); break;
	case 4: c->s.gpr[reg] = (uint32_t)value; break;
	default: c->s.gpr[reg] = value; break;
	}
}

/* Checks that `count` pushes of `size` bytes would succeed, in their order, without making any. */
enum status stack_probe(struct cpu *c, uint32_t size, uint32_t count);

/* Rights and limit of a segment that is not flat. */
enum status segment_check(struct cpu *c, uint32_t segment, uint64_t offset, uint32_t size, bool write);

ALWAYS_INLINE uint64_t op_offset(const struct cpu *c, const struct op *op)
{
#ifdef ADDRESS_FLAT
	return (c->s.gpr[op->base] + (uint64_t)op->displacement) & c->linear_mask;
#else
	uint64_t offset = c->s.gpr[op->base] + (c->s.gpr[op->index] << op->scale) + (uint64_t)op->displacement;
	return offset & op->address_mask;
#endif
}

ALWAYS_INLINE enum status linear(struct cpu *c, uint32_t segment, uint64_t offset, uint32_t size, bool write, uint64_t *ret)
{
#ifdef ADDRESS_FLAT
	(void)segment;
	(void)size;
	(void)write;
	(void)c;
	*ret = offset;
	return STATUS_OK;
#else
	const struct segment_view *view = &c->view[segment];
	if (unlikely(view->checked)) {
#ifdef ACCESS_DIRECT
		return STATUS_REDO;
#else
		TRY(segment_check(c, segment, offset, size, write));
#endif
	}
	(void)size;
	(void)write;
	*ret = (view->base + offset) & c->linear_mask;
	return STATUS_OK;
#endif
}

ALWAYS_INLINE enum status op_address(struct cpu *c, const struct op *op, uint32_t size, bool write, uint64_t *ret)
{
	return linear(c, op->segment, op_offset(c, op), size, write, ret);
}

/* The E operand, read only. */
ALWAYS_INLINE enum status e_get(struct cpu *c, const struct op *op, uint32_t size, bool memory, uint64_t *ret)
{
	if (!memory) {
		*ret = reg_get(c, op->rm, size);
		return STATUS_OK;
	}
	uint64_t addr;
	TRY(op_address(c, op, size, false, &addr));
	return mem_load(c, op, addr, size, ret);
}

/* The E operand, to be written back to *addr by e_put. */
ALWAYS_INLINE enum status e_get_for_write(struct cpu *c, const struct op *op, uint32_t size, bool memory, uint64_t *addr,
					  uint64_t *ret)
{
	*addr = 0;
	if (!memory) {
		*ret = reg_get(c, op->rm, size);
		return STATUS_OK;
	}
	TRY(op_address(c, op, size, true, addr));
	return mem_load_for_write(c, op, *addr, size, ret);
}

ALWAYS_INLINE enum status e_put(struct cpu *c, const struct op *op, uint32_t size, bool memory, uint64_t addr, uint64_t value)
{
	if (!memory) {
		reg_set(c, op->rm, size, value);
		return STATUS_OK;
	}
	return mem_store(c, op, addr, size, value);
}

/* The E operand, write only. */
ALWAYS_INLINE enum status e_set(struct cpu *c, const struct op *op, uint32_t size, bool memory, uint64_t value)
{
	uint64_t addr = 0;
	if (memory)
		TRY(op_address(c, op, size, true, &addr));
	return e_put(c, op, size, memory, addr, value);
}

ALWAYS_INLINE uint64_t stack_mask(const struct cpu *c)
{
#ifdef ADDRESS_FLAT
	return c->linear_mask;
#else
	return c->stack_mask;
#endif
}

/* A stack of less than 64 bits leaves the rest of RSP alone; in 32-bit code the upper half does not exist. */
ALWAYS_INLINE void stack_set(struct cpu *c, uint64_t pointer)
{
	uint64_t mask = stack_mask(c);
#ifdef ADDRESS_FLAT
	c->s.gpr[RSP] = pointer & mask;
#else
	c->s.gpr[RSP] = ((c->s.gpr[RSP] & ~mask) | (pointer & mask)) & c->linear_mask;
#endif
}

ALWAYS_INLINE enum status stack_push(struct cpu *c, const struct op *op, uint32_t size, uint64_t value)
{
	uint64_t pointer = (c->s.gpr[RSP] - size) & stack_mask(c), addr;
	TRY(linear(c, SS, pointer, size, true, &addr));
	TRY(mem_store_info(c, op, addr, size, ACCESS_STACK, value));
	stack_set(c, pointer);
	return STATUS_OK;
}

/* Reads `size` bytes `depth` bytes above the stack pointer, without moving it. */
ALWAYS_INLINE enum status stack_peek(struct cpu *c, const struct op *op, uint32_t depth, uint32_t size, uint64_t *ret)
{
	uint64_t addr;
	TRY(linear(c, SS, (c->s.gpr[RSP] + depth) & stack_mask(c), size, false, &addr));
	return mem_load_info(c, op, addr, size, ACCESS_STACK, ret);
}

ALWAYS_INLINE void stack_drop(struct cpu *c, uint32_t size)
{
	stack_set(c, c->s.gpr[RSP] + size);
}

/* A handler body is written once as
 *     ALWAYS_INLINE enum status name(struct cpu *c, const struct op *op, uint32_t size, bool memory)
 * and made into the table entry `name_handlers` by one of these. */
#define CHAINED(name, size, suffix, memory)                                              \
	static enum status name##_##suffix(struct cpu *c, const struct op *op)           \
	{                                                                                \
		enum status status = name(c, op, size, memory);                          \
		if (unlikely(status != STATUS_OK))                                       \
			return chain_stop(c, op, status);                                \
		return chain_next(c, op);                                                \
	}
/* Sees rip, step and retired as they are, may change them, and ends the chain. */
#define SYNCED(name, size, suffix, memory)                                               \
	static enum status name##_##suffix(struct cpu *c, const struct op *op)           \
	{                                                                                \
		uint64_t start = op_rip(c, op);                                          \
		chain_sync(c, op);                                                       \
		enum status status = name(c, op, size, memory);                          \
		if (unlikely(status == STATUS_FAULT || status == STATUS_PARTIAL || status == STATUS_VISIBLE)) \
			c->s.rip = start;                                                \
		return status;                                                           \
	}
/* Goes on by itself: jumps. */
#define BRANCHING(name, size, suffix, memory)                                            \
	static enum status name##_##suffix(struct cpu *c, const struct op *op)           \
	{                                                                                \
		return name(c, op, size, memory);                                        \
	}

#define VARIANTS(VARIANT, name)                                                          \
	VARIANT(name, 1, r1, false) VARIANT(name, 2, r2, false) VARIANT(name, 4, r4, false) VARIANT(name, 8, r8, false) \
	VARIANT(name, 1, m1, true) VARIANT(name, 2, m2, true) VARIANT(name, 4, m4, true) VARIANT(name, 8, m8, true)
#define HANDLERS_OF(name) {{name##_r1, name##_r2, name##_r4, name##_r8}, {name##_m1, name##_m2, name##_m4, name##_m8}}

/* A function for each size, register and memory. */
#ifdef ACCESS_DIRECT
#ifdef ADDRESS_FLAT
#define AS_DIRECT(name) const struct direct_handlers name##_flat = {HANDLERS_OF(name)};
#else
#define AS_DIRECT(name) const struct direct_handlers name##_direct = {HANDLERS_OF(name)};
#endif
#define HANDLERS(name) VARIANTS(CHAINED, name) AS_DIRECT(name)
#define HANDLERS_BRANCH(name) VARIANTS(BRANCHING, name) AS_DIRECT(name)
#define HANDLERS_SYNCED(name)
#define HANDLERS_ANY(name)
#else
#define WITH_DIRECT(name) extern const struct direct_handlers name##_direct, name##_flat;   \
	const struct handlers name##_handlers = {HANDLERS_OF(name), false, &name##_direct, &name##_flat};
#define HANDLERS(name) VARIANTS(CHAINED, name) WITH_DIRECT(name)
#define HANDLERS_BRANCH(name) VARIANTS(BRANCHING, name) WITH_DIRECT(name)
#define HANDLERS_SYNCED(name) VARIANTS(SYNCED, name)                                        \
	const struct handlers name##_handlers = {HANDLERS_OF(name), true, NULL, NULL};
/* Without operands in memory: chained, and no second time. */
#define HANDLERS_PLAIN(name) VARIANTS(CHAINED, name)                                        \
	const struct handlers name##_handlers = {HANDLERS_OF(name), false, NULL, NULL};
/* One function for all, looking at op->size and op->flags itself. */
#define HANDLERS_ANY(name)                                                               \
	SYNCED(name, op->size, any, op->flags & OP_MEMORY)                               \
	const struct handlers name##_handlers = {{{name##_any, name##_any, name##_any, name##_any}, \
						  {name##_any, name##_any, name##_any, name##_any}}, true, NULL, NULL};
#endif

/* TRY for the handlers of jumps, which no wrapper looks after. */
#define TRY_STOP(expression)                                         \
	do {                                                         \
		enum status try_status = (expression);               \
		if (unlikely(try_status != STATUS_OK))               \
			return chain_stop(c, op, try_status);        \
	} while (0)

#endif
