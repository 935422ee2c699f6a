#include "execute.h"

#include "access.h"
#include "decode.h"
#include "exec.h"
#include "interrupt.h"
#include "mmu.h"
#include "store_buffer.h"

static bool must_drain(const struct cpu *c, const struct op *op)
{
	return op->flags & OP_DRAIN || (op->flags & OP_STORES && c->s.store_count >= c->machine->store_capacity);
}

/* The cached instruction at rip, or NULL if only decode_fetch knows. */
static const struct op *fetch_cached(const struct cpu *c)
{
	uint64_t offset = c->s.rip - c->fetch_page_rip;
	if (unlikely(!c->fetch_valid || offset >= PAGE_SIZE))
		return NULL;
	uint32_t slot = c->fetch_code->slot[offset];
	return likely(slot) ? &c->machine->code->ops[slot - 1] : NULL;
}

/* Whether own stores to the bytes of `op` are still buffered. A CPU never executes what its own stores have already
 * replaced (SDM vol. 3, 8.1.3), and instructions are fetched from memory. */
static bool overwritten(struct cpu *c, const struct op *op)
{
	uint64_t addr = (c->s.segment[CS].base + c->s.rip) & 0xffffffff, phys;
	uint32_t size = op->row == UINT16_MAX ? INSTRUCTION_SIZE_MAX : op->length;
	while (size) {
		uint32_t part = PAGE_SIZE - (uint32_t)(addr & (PAGE_SIZE - 1));
		part = size < part ? size : part;
		if (mmu_peek_cached(c, addr, &phys) && store_buffer_overlaps(c, phys, part))
			return true;
		addr = (addr + part) & 0xffffffff;
		size -= part;
	}
	return false;
}

/* Whether the next instruction has to wait for the own store buffer. Decided before anything of the instruction
 * happens, not even a page walk: waiting is not a step and must leave no trace. */
static bool blocked(struct cpu *c)
{
	const struct op *op = fetch_cached(c);
	if (!op)
		op = decode_peek(c);
	return op && (must_drain(c, op) || overwritten(c, op));
}

static enum status execute_locked(struct cpu *c, const struct op *op)
{
	c->access_info = EVENT_LOCKED;
	enum status status = op->handler(c, op);
	c->access_info = 0;
	return status;
}

enum run_end cpu_run(struct cpu *c, uint64_t step_end, bool stop_at_pause)
{
	struct machine *m = c->machine;
	if (c->s.waiting || m->s.ended)
		return RUN_WAITING;
	m->run_end = step_end;
	while (m->step < m->run_end) {
		if (unlikely(c->s.store_count) && blocked(c))
			return RUN_BLOCKED;
		uint64_t start = c->s.rip;
		c->pc = (c->s.segment[CS].base + start) & 0xffffffff;
		const struct op *op = fetch_cached(c);
		if (unlikely(!op))
			op = decode_fetch(c);
		enum status status = STATUS_FAULT;
		if (likely(op != NULL)) {
			c->s.rip = (start + op->length) & 0xffffffff;
			status = unlikely(op->flags & OP_LOCK) ? execute_locked(c, op) : op->handler(c, op);
		}
		if (likely(status == STATUS_OK)) {
			c->s.retired++;
			m->step++;
		} else if (status == STATUS_REPEAT) {
			m->step++;
		} else if (status == STATUS_FAULT) {
			c->s.rip = start;
			exception_deliver(c);
			m->step++;
			if (m->s.ended)
				return RUN_WAITING;
		} else {
			c->s.retired++;
			m->step++;
			if (status == STATUS_STOP)
				return RUN_WAITING;
			if (status == STATUS_TRACE)
				return RUN_TRACE;
			if (stop_at_pause)
				return RUN_PAUSE;
		}
		if (unlikely(tap_full(&m->tap)))
			return RUN_EVENTS;
	}
	return RUN_STEPS;
}
