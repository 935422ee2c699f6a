#include "execute.h"

#include "access.h"
#include "chain.h"
#include "debug.h"
#include "decode.h"
#include "exec.h"
#include "interrupt.h"
#include "mmu.h"
#include "store_buffer.h"
#include "visible.h"

static void fall_back(struct cpu *c)
{
	if (c->ahead)
		store_buffer_fall_back(c);
}

static uint64_t linear_rip(const struct cpu *c)
{
	return (c->view[CS].base + c->s.rip) & c->linear_mask;
}

/* Whether own stores to the bytes of `op` are still buffered. A CPU never executes what its own stores have already
 * replaced (SDM vol. 3, 8.1.3), and instructions are fetched from memory. */
static bool overwritten(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	uint64_t addr = linear_rip(c), phys;
	uint32_t left = PAGE_SIZE - (uint32_t)(addr & (PAGE_SIZE - 1)), size = op->length;
	/* All that was looked at: of the next page nothing, unless only that could tell. */
	if (op->flags & OP_INVALID)
		size = left < INSTRUCTION_SIZE_MAX && op != &m->code->straddling[0] ? left : INSTRUCTION_SIZE_MAX;
	for (uint32_t at = 0, part; at < size; at += part) {
		part = at == 0 && left < size ? left : size - at;
		if (!mmu_peek_cached(c, (addr + at) & c->linear_mask, &phys))
			continue;
		if (!memory_contains(&m->memory, phys, part))
			return false; /* no store lies there, and nothing behind it was looked at */
		if (store_buffer_overlaps(c, phys, part))
			return true;
	}
	return false;
}

/* How many stores have to drain before the next instruction, or before it looks again: 0 if it need not wait. Decided
 * before anything of the instruction happens, not even a page walk: waiting is not a step and must leave no trace. */
static uint32_t stores_in_the_way(struct cpu *c)
{
	const struct op *op = fetch_cached(c, linear_rip(c));
	if (unlikely(!op)) {
		fall_back(c);
		op = decode_peek(c);
		if (!op)
			return 0;
	}
	bool full = op->flags & OP_STORES && store_buffer_full(c);
	if (c->stores_in_code) /* any drain may put another instruction here */
		return op->flags & OP_DRAIN || full || overwritten(c, op);
	if (op->flags & OP_DRAIN)
		return c->s.store_count;
	return full ? c->s.store_count - c->machine->store_capacity + 1 : 0;
}

static enum status execute(struct cpu *c, const struct op *op)
{
	enum status status = op->handler(c, op);
	while (!RACETAPE_CHAINED && status == STATUS_NEXT)
		status = c->op->handler(c, c->op);
	return status;
}

/* Executes `op` by itself: a copy of it, behind which the chain ends. */
static enum status execute_single(struct cpu *c, const struct op *op, op_handler handler)
{
	c->machine->chain_end = 0;
	c->single[0] = *op;
	c->single[0].handler = handler;
	c->single[0].link = NULL;
	c->single[1] = (struct op){.handler = exec_end, .row = ROW_END, .number = (uint8_t)(op->number + 1),
				   .offset = (uint16_t)(op->offset + op->length)};
	return execute(c, &c->single[0]);
}

enum status exec_locked(struct cpu *c, const struct op *op)
{
	assert(!c->s.store_count);
	c->access_info = EVENT_LOCKED;
	c->fast_write = c->fast_read; /* its store is not held: straight to memory, if that may be */
	enum status status = execute_single(c, op, op->inner);
	c->access_info = 0;
	if (c->buffered)
		cpu_update_fast(c);
	return status;
}

/* From the instruction at rip on: as many as a chain takes, or one. */
static enum status run_chain(struct cpu *c)
{
	struct machine *m = c->machine;
	uint64_t linear = c->pc = linear_rip(c);
	const struct op *op = fetch_cached(c, linear);
	if (unlikely(!op)) {
		fall_back(c);
		op = decode_fetch(c);
		/* The walk may have put another instruction here, by an accessed bit within it: too late to wait for a step. */
		if (unlikely(op && c->s.store_count && stores_in_the_way(c))) {
			visible_commit(c);
			store_buffer_drain_all(c);
			op = decode_fetch(c);
		}
		if (!op)
			return m->watch.asks && m->watch.stopped ? STATUS_VISIBLE : STATUS_FAULT;
	}
	c->page_linear = linear & ~(uint64_t)(PAGE_SIZE - 1);
	c->s.gpr[GPR_PAGE] = c->s.rip - (linear & (PAGE_SIZE - 1));
	c->step_base = m->step - op->number;
	c->retired_base = c->s.retired - m->step;
	m->chain_end = m->run_end < INT64_MAX ? m->run_end : INT64_MAX;
	/* A page without a tag has to be looked at for every instruction: a segment limit lies in it, or it is no RAM. */
	bool cached = c->fetch_tag[linear >> PAGE_SHIFT & (FETCH_SLOTS - 1)] == c->page_linear;
	bool plain = !c->careful && !c->stores_in_code && !c->s.partial_count;
	if (likely(cached && plain && !(op->flags & c->stop_flags))) {
		uint64_t steps = m->run_end - m->step;
		if (steps < op->left)
			chain_stop_at(m, op + steps);
		if (c->buffered && !(op->flags & OP_SYNCED))
			store_buffer_run_ahead(c);
		return execute(c, op);
	}
	fall_back(c);
	m->chain_end = 0;
	return op->flags & OP_SYNCED ? execute(c, op) : execute_single(c, op, op_general_handler(op));
}

/* What a careful CPU does after an instruction: the resume flag ends with it, and traps come, still within its step. */
static void finish_careful(struct cpu *c, uint64_t step, uint64_t flags_before, bool repeats)
{
	struct machine *m = c->machine;
	if (!repeats && flags_before & FLAG_RF && !c->resume_loaded)
		c->s.rflags &= ~(uint64_t)FLAG_RF;
	cpu_update_mode(c);
	c->watch_hits |= c->s.traps_held & ~(uint32_t)TRAPS_BEHIND_SS;
	c->s.traps_held = 0;
	if (c->trap_delayed) { /* MOV SS and POP SS: after the next instruction */
		c->s.traps_held = TRAPS_BEHIND_SS | (uint32_t)c->watch_hits;
		c->watch_hits = 0;
		return;
	}
	if (m->s.ended || !debug_trap(c, c->trap_armed))
		return;
	m->step = step;
	trap_deliver(c);
	m->step = step + 1;
}

/* Drains the `count` oldest stores, a step each, as far as the run goes and the tap has room. */
static void make_room(struct cpu *c, uint32_t count)
{
	struct machine *m = c->machine;
	for (; count && m->step < m->run_end && !tap_full(&m->tap); count--) {
		store_buffer_drain_one(c);
		m->step++;
		c->room_made = true;
	}
}

/* STATUS_FAULT if the handler is entered, STATUS_VISIBLE if the run stops before the instruction that faults. */
static enum status deliver_fault(struct cpu *c)
{
	uint64_t cr2 = c->s.cr2, dr6 = c->s.dr[6], dr7 = c->s.dr[7];
	uint32_t traps_held = c->s.traps_held;
	c->watch_hits = c->s.traps_held = 0; /* of an instruction that did not happen */
	partial_forget(c);
	if (c->fault.vector == VECTOR_DB) { /* general detection is the only fault of this vector; others are traps */
		c->s.dr[6] |= DR6_BD;
		c->s.dr[7] &= ~(uint64_t)DR7_GD;
	}
	if (exception_deliver(c))
		return STATUS_FAULT;
	c->s.cr2 = cr2;
	c->s.dr[6] = dr6;
	c->s.dr[7] = dr7;
	c->s.traps_held = traps_held;
	return STATUS_VISIBLE;
}

static enum run_end run_chains(struct cpu *c, uint64_t step_end, bool stop_at_pause)
{
	struct machine *m = c->machine;
	if (c->s.waiting || m->s.ended || m->pool.use.access)
		return RUN_WAITING;
	m->run_end = step_end;
	while (m->step < m->run_end) {
		uint32_t waits_for = c->s.store_count ? stores_in_the_way(c) : 0;
		if (unlikely(waits_for)) {
			if (!m->makes_room)
				return RUN_BLOCKED;
			make_room(c, waits_for);
			if (unlikely(tap_full(&m->tap)))
				return RUN_EVENTS;
			continue;
		}
		uint64_t step = m->step, flags = c->s.rflags;
		bool careful = c->careful, begun = c->s.partial_count;
		enum status status;
		if (unlikely(careful) && debug_breakpoint(c)) {
			trap_deliver(c);
			m->step++;
			status = STATUS_END;
		} else {
			if (unlikely(m->watch.asks))
				visible_save_partial(c);
			c->trap_armed = flags & FLAG_TF;
			c->trap_delayed = c->resume_loaded = false;
			status = run_chain(c);
			chain_mend(m);
			if (status == STATUS_BLOCKED) {
				if (!m->makes_room)
					return RUN_BLOCKED;
				make_room(c, 1);
				if (unlikely(tap_full(&m->tap)))
					return RUN_EVENTS;
				continue;
			}
			if (status == STATUS_FAULT)
				status = deliver_fault(c);
			if (status == STATUS_VISIBLE) {
				c->watch_hits = 0; /* will be hit again */
				visible_undo(c, step);
				return RUN_VISIBLE;
			}
			if (status != STATUS_END)
				m->step++;
			if (status == STATUS_PARTIAL)
				c->watch_hits = 0; /* will be hit again */
			else
				c->s.repeating = status == STATUS_REPEAT;
			if (unlikely(begun) && status != STATUS_PARTIAL)
				partial_forget(c); /* another instruction may have been written there */
			if (status != STATUS_END && status != STATUS_FAULT && status != STATUS_REPEAT && status != STATUS_PARTIAL)
				c->s.retired++;
			if (unlikely(careful) && status != STATUS_FAULT && status != STATUS_PARTIAL)
				finish_careful(c, step, flags, status == STATUS_REPEAT);
		}
		if (m->s.ended || c->s.waiting || unlikely(m->pool.use.access))
			return RUN_WAITING;
		if (unlikely(status == STATUS_TRACE))
			return RUN_TRACE;
		if (unlikely(status == STATUS_PAUSE) && stop_at_pause)
			return RUN_PAUSE;
		if (unlikely(tap_full(&m->tap)))
			return RUN_EVENTS;
	}
	return RUN_STEPS;
}

enum run_end cpu_run(struct cpu *c, uint64_t step_end, bool stop_at_pause)
{
	enum run_end end = run_chains(c, step_end, stop_at_pause);
	fall_back(c);
	return end;
}
