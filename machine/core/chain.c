#include "chain.h"

#include "decode.h"
#include "store_buffer.h"

enum status chain_stop(struct cpu *c, const struct op *op, enum status status)
{
	assert(status != STATUS_OK && status != STATUS_END);
	if (status == STATUS_REDO) {
		op_handler general = op_general_handler(op);
		return general(c, op);
	}
	chain_sync(c, op);
	/* An instruction that has to wait does so before it faults: executed by itself it would not even have begun. */
	if (status == STATUS_FAULT && c->machine->chain_end && op->flags & OP_STORES && store_buffer_full(c))
		status = STATUS_BLOCKED;
	if (status == STATUS_FAULT || status == STATUS_BLOCKED || status == STATUS_PARTIAL || status == STATUS_VISIBLE)
		c->s.rip = op_rip(c, op);
	return status;
}

/* Lets the run end in the midst of the block at `next`, if it is that which lacks room. */
static bool chain_cut(struct cpu *c, const struct op *next, uint64_t step)
{
	struct machine *m = c->machine;
	int64_t steps = (int64_t)(m->chain_end - step);
	if (steps <= 0 || steps >= next->left || m->tap.next >= m->tap.full || next->flags & c->stop_flags)
		return false;
	chain_stop_at(m, next + steps);
	return true;
}

enum status chain_lookup(struct cpu *c, const struct op *op, uint32_t steps, uint64_t rip, bool direct)
{
	struct machine *m = c->machine;
	uint64_t step = c->step_base + steps;
	c->s.rip = rip;
	uint64_t linear = (c->view[CS].base + rip) & c->linear_mask;
	uint32_t offset = (uint32_t)(linear & (PAGE_SIZE - 1));
	const struct op *next = fetch_cached(c, linear);
	if (likely(next && (chain_has_room(c, next, step) || chain_cut(c, next, step)))) {
		/* A 16-bit target depends on more than the place in the page. */
		if (direct && op->size != 2 && linear - offset == c->page_linear)
			((struct op *)op)->link = next;
		c->s.gpr[GPR_PAGE] = rip - offset;
		c->page_linear = linear - offset;
		c->step_base = step - next->number;
		return chain_enter(c, next);
	}
	m->step = step;
	c->s.retired = c->retired_base + m->step;
	return STATUS_END;
}

/* Every block ends with this: on to the instruction after it. */
enum status exec_end(struct cpu *c, const struct op *op)
{
	const struct op *next = chain_follow(c, op, op->number);
	return likely(next) ? chain_enter(c, next) : chain_lookup(c, op, op->number, op_rip(c, op), true);
}

/* Stands where an instruction was written over since it was decoded, or where a chain has to end: back to the run loop,
 * which looks again. */
enum status exec_stale(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	m->step = c->step_base + op->number;
	c->s.retired = c->retired_base + m->step;
	c->s.rip = op_rip(c, op);
	return STATUS_END;
}

void chain_stop_at(struct machine *m, const struct op *op)
{
	chain_mend(m);
	m->broken = (struct op *)op;
	m->broken_handler = op->handler;
	m->broken->handler = exec_stale;
}

void chain_break(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	m->chain_end = 0; /* if `op` is a branch, it looks there */
	if (op != &c->single[0])
		chain_stop_at(m, op + 1); /* otherwise it comes there */
}

void chain_mend(struct machine *m)
{
	if (m->broken)
		m->broken->handler = m->broken_handler;
	m->broken = NULL;
}
