/* Chains: how one instruction leads to the next without going back to the run loop.
 *
 * Decoded instructions of a block lie one after the other, closed by `exec_end`. A handler that is done calls the next
 * one's handler as its last act, which the compiler turns into a jump. What every instruction would have to count is
 * not counted within a chain: step, rip and the number of retired instructions follow from the place of the
 * instruction in its block (`number`, `offset`). `chain_sync` writes them down wherever somebody may look: before a slow
 * access, an exception, or an instruction that needs them; memory is then as others see it, too (store_buffer.h).
 *
 * A chain is entered only if all its steps may be taken, so nothing is checked between two instructions:
 *   the budget      `left` steps fit into the run; checked at every branch. A chain that starts with less is stopped
 *                   in the middle of its block: `chain_stop_at`;
 *   the event tap   is not full, and has room for whatever a block can make beyond that;
 *   store buffer    instructions that may have to wait for it stand at the start of a block (OP_WAITS), where a chain
 *                   stops while anything is buffered. Those whose first act is their only store may stand anywhere:
 *                   a full buffer makes that store STATUS_BLOCKED, with nothing done;
 *   interrupts      are steps of the plan, never taken in a run;
 *   written code    turns the decoded instruction into `exec_stale`, which goes back to the run loop;
 *   end of the run  brought forward by an instruction (a CPU that interrupts itself), or
 *   TLB             the translation of the page that is executed was evicted: `chain_break`.
 */
#ifndef RACETAPE_CHAIN_H
#define RACETAPE_CHAIN_H

#include "op.h"
#include "store_buffer.h"

enum {
	BLOCK_INSTRUCTION_MAX = 16,
	/* More than the instructions of a block can make but for its last one: a read-modify-write in two pieces, each with
	 * walks, updates and evictions, and a whole store buffer drained, makes at most 160. */
	CHAIN_EVENT_MAX = (BLOCK_INSTRUCTION_MAX - 1) * 160,
};

ALWAYS_INLINE enum status chain_enter(struct cpu *c, const struct op *op)
{
#if RACETAPE_CHAINED
	return op->handler(c, op);
#else
	c->op = op;
	return STATUS_NEXT;
#endif
}

ALWAYS_INLINE enum status chain_next(struct cpu *c, const struct op *op)
{
	return chain_enter(c, op + 1);
}

ALWAYS_INLINE uint64_t op_rip(const struct cpu *c, const struct op *op)
{
	return (c->s.gpr[GPR_PAGE] + op->offset) & c->linear_mask;
}

ALWAYS_INLINE uint64_t op_rip_next(const struct cpu *c, const struct op *op)
{
	return (c->s.gpr[GPR_PAGE] + op->offset + op->length) & c->linear_mask;
}

/* What `op` sees of the machine while it executes: it is the step, and rip is that of the instruction after it. */
ALWAYS_INLINE void chain_sync(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	m->step = c->step_base + op->number;
	c->s.retired = c->retired_base + m->step;
	c->s.rip = op_rip_next(c, op);
	c->pc = c->page_linear + op->offset;
	if (unlikely(c->ahead))
		store_buffer_fall_back(c);
}

/* Ends a chain at an instruction that reports something else than STATUS_OK. */
enum status chain_stop(struct cpu *c, const struct op *op, enum status status);
/* After `steps` steps of the block: goes on at `rip`, wherever that is decoded; links the branch `op` to it if both are
 * in one page and `direct`. */
enum status chain_lookup(struct cpu *c, const struct op *op, uint32_t steps, uint64_t rip, bool direct);
/* Makes a chain end before `op`. Only one CPU runs at a time, and the run loop mends this before anything else is executed. */
void chain_stop_at(struct machine *m, const struct op *op);
/* Makes the chain end after `op`, the instruction being executed. */
void chain_break(struct cpu *c, const struct op *op);
/* Takes that back. Called after every chain. */
void chain_mend(struct machine *m);
/* Handlers that no instruction has: see chain.c. */
enum status exec_end(struct cpu *c, const struct op *op);
enum status exec_stale(struct cpu *c, const struct op *op);

/* Whether a chain may go on with `next`, to the end of its block. */
ALWAYS_INLINE bool chain_has_room(const struct cpu *c, const struct op *next, uint64_t step)
{
	const struct machine *m = c->machine;
	return (int64_t)(m->chain_end - step) >= next->left && m->tap.next < m->tap.full &&
	       !(next->flags & c->stop_flags);
}

/* After `steps` steps of the block, at the branch or end of block `op`: where the chain goes on, or NULL if that has to
 * be looked up. */
ALWAYS_INLINE const struct op *chain_follow(struct cpu *c, const struct op *op, uint32_t steps)
{
	const struct op *next = op->link;
	uint64_t step = c->step_base + steps;
	if (unlikely(!next || !chain_has_room(c, next, step)))
		return NULL;
	c->step_base = step - next->number;
	return next;
}

#endif
