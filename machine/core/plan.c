/* Plans: what runs next, as data. Exact plans replay a tape; tentative ones are what strategies propose. */
#include "apic.h"
#include "choices.h"
#include "execute.h"
#include "interrupt.h"
#include "store_buffer.h"
#include "tap.h"
#include "tlb.h"

static void set_hold(struct cpu *c, bool hold)
{
	if (c->hold == hold)
		return;
	c->hold = hold;
	cpu_update_fast(c);
}

/* Runs `c` and logs what it did as one choice. */
static enum run_end run(struct cpu *c, uint64_t step_end, bool stop_at_pause)
{
	struct machine *m = c->machine;
	uint64_t first = m->step;
	c->room_made = false;
	enum run_end end = cpu_run(c, step_end, stop_at_pause);
	uint16_t flags = (c->hold ? PLAN_HOLD : 0) | (c->room_made ? PLAN_ROOM : 0);
	if (m->step != first)
		choices_append(m, PLAN_RUN, (uint8_t)c->number, flags, m->step - first);
	return end;
}

static void drain_step(struct cpu *c)
{
	store_buffer_drain_one(c);
	c->machine->step++;
	choices_append(c->machine, PLAN_DRAIN, (uint8_t)c->number, 0, 1);
}

bool interrupt_possible(const struct cpu *c, uint64_t vector)
{
	if (vector == VECTOR_NMI)
		return nmi_open(c);
	return vector <= 255 && apic_can_deliver(c, (uint8_t)vector);
}

/* What would be delivered next without the schedule saying more: a non-maskable interrupt, or the highest pending one
 * that the CPU accepts; -1 if there is none. */
static int pending_interrupt(const struct cpu *c)
{
	return nmi_open(c) ? VECTOR_NMI : apic_pending(c);
}

static bool irq_step(struct cpu *c, uint64_t vector)
{
	struct machine *m = c->machine;
	if (!interrupt_possible(c, vector))
		return false;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	if (vector == VECTOR_NMI) {
		tap_event(c, EVENT_nmi, 0, 0, 0, 0, 0);
		nmi_accept(c);
	} else {
		tap_event(c, EVENT_interrupt, 0, 0, 0, 0, (uint32_t)vector);
		apic_accept(c, (uint8_t)vector);
	}
	if (interrupt_deliver(c, (uint8_t)vector, SOURCE_EXTERNAL, false, 0) != STATUS_OK)
		exception_deliver(c);
	m->step++;
	choices_append(m, PLAN_IRQ, (uint8_t)c->number, 0, vector);
	return true;
}

static bool choice_step(struct cpu *c, uint64_t answer)
{
	struct machine *m = c->machine;
	if (c->s.waiting != WAIT_CHOICE || answer >= c->s.choice_count)
		return false;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	tap_event(c, EVENT_choice, c->s.choice_count, 0, answer, 0, 0);
	c->s.choice_answer = (uint32_t)answer;
	c->s.waiting = WAIT_NONE;
	m->step++;
	choices_append(m, PLAN_CHOICE, (uint8_t)c->number, 0, answer);
	return true;
}

static bool evict_step(struct cpu *c, uint64_t page)
{
	struct machine *m = c->machine;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	if (!tlb_evict(c, page))
		return false;
	m->step++;
	choices_append(m, PLAN_EVICT, (uint8_t)c->number, 0, page);
	return true;
}

static bool runnable(const struct cpu *c)
{
	return c->s.waiting == WAIT_NONE;
}

static struct cpu *first_with_stores(struct machine *m)
{
	for (uint32_t i = 0; i < m->cpu_count; i++)
		if (m->cpus[i].s.store_count)
			return &m->cpus[i];
	return NULL;
}

/* The CPU whose turn it is, or NULL if all wait. */
static struct cpu *auto_choose(struct machine *m)
{
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		struct cpu *c = &m->cpus[(m->auto_cpu + i) % m->cpu_count];
		if (runnable(c) || pending_interrupt(c) >= 0)
			return c;
	}
	return NULL;
}

/* With every CPU waiting: a tick for the lowest one that takes it. */
static bool auto_tick(struct machine *m)
{
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		int vector = apic_timer_vector(&m->cpus[i]);
		if (vector >= 0 && irq_step(&m->cpus[i], (uint64_t)vector)) {
			m->auto_cpu = i;
			return true;
		}
	}
	return false;
}

static bool any_waits_for_choice(const struct machine *m)
{
	for (uint32_t i = 0; i < m->cpu_count; i++)
		if (m->cpus[i].s.waiting == WAIT_CHOICE)
			return true;
	return false;
}

/* The default schedule: the CPU that runs goes on until it waits or spins (PAUSE), then the next in turn (after a wait:
 * the lowest). Stores drain at once, those that an earlier part of the plan left held first; pending IPIs come before
 * the next instruction; with every CPU waiting there is a tick. Each turn of the loop takes one step or one run. */
static enum stop auto_execute(struct machine *m, uint64_t step_end)
{
	while (m->step < step_end) {
		if (m->s.ended)
			return m->s.shutdown ? STOP_shutdown : STOP_exit;
		if (tap_full(&m->tap))
			return STOP_events;
		struct cpu *holder = first_with_stores(m);
		if (holder) {
			drain_step(holder);
			continue;
		}
		struct cpu *chosen = auto_choose(m);
		if (!chosen) {
			if (any_waits_for_choice(m))
				return STOP_choice;
			if (!auto_tick(m))
				return STOP_idle;
			continue;
		}
		m->auto_cpu = chosen->number;
		int pending = pending_interrupt(chosen);
		if (pending >= 0) {
			irq_step(chosen, (uint64_t)pending);
			continue;
		}
		/* What is pending may become deliverable with any instruction. */
		bool watch = chosen->s.nmi_pending || apic_raised(chosen);
		enum run_end end = run(chosen, watch ? m->step + 1 : step_end, true);
		switch (end) {
		case RUN_PAUSE: m->auto_cpu = (chosen->number + 1) % m->cpu_count; break;
		case RUN_WAITING: m->auto_cpu = 0; break;
		case RUN_TRACE: return STOP_trace;
		case RUN_BLOCKED: /* cannot be: nothing is buffered */
		case RUN_STEPS:
		case RUN_EVENTS: break;
		}
	}
	return STOP_steps;
}

enum {
	AGENT_DRAIN = 8,	  /* agents 0 to 7 are the CPUs, 8 to 15 their store buffers */
	AGENT_COUNT = 16,
	RANK_LOOK_STEPS = 128, /* so often a CPU of higher rank that waits or spins is looked at again */
};

/* Agent of rank `rank`, 0 the highest. */
static uint32_t ranked_agent(uint64_t order, uint32_t rank)
{
	return (uint32_t)(order >> 4 * rank) & 15;
}

static bool agent_enabled(const struct machine *m, uint32_t agent, uint32_t spinning)
{
	uint32_t number = agent % AGENT_DRAIN;
	if (number >= m->cpu_count)
		return false;
	const struct cpu *c = &m->cpus[number];
	if (agent >= AGENT_DRAIN)
		return c->s.store_count;
	return !(spinning >> number & 1) && (runnable(c) || pending_interrupt(c) >= 0);
}

static uint32_t rank_of(uint64_t order, uint32_t agent)
{
	uint32_t rank = 0;
	while (rank < AGENT_COUNT && ranked_agent(order, rank) != agent)
		rank++;
	return rank;
}

/* At every multiple of RANK_LOOK_STEPS turns end, and who was passed over no longer is. */
static void ranks_look(struct machine *m)
{
	if (m->step >= m->ranks.look_step)
		m->ranks = (struct ranks){.look_step = (m->step / RANK_LOOK_STEPS + 1) * RANK_LOOK_STEPS};
}

/* One turn of the CPU `c`, or what is left of it. Its stores are held if its buffer ranks below it. */
static enum run_end ranked_run(struct machine *m, uint64_t order, struct cpu *c, uint64_t step_end)
{
	struct ranks *ranks = &m->ranks;
	uint32_t rank = rank_of(order, c->number);
	bool others_wait = ranks->spinning;
	for (uint32_t above = 0; above < rank; above++)
		others_wait |= ranked_agent(order, above) < m->cpu_count; /* it was not enabled, or it would run */
	m->auto_cpu = c->number;
	int pending = pending_interrupt(c);
	if (pending >= 0) {
		irq_step(c, (uint64_t)pending);
		ranks->turn = 0;
		return RUN_STEPS;
	}
	uint64_t turn_end = others_wait && ranks->look_step < step_end ? ranks->look_step : step_end;
	if (c->s.nmi_pending || apic_raised(c))
		turn_end = m->step + 1;
	set_hold(c, rank_of(order, AGENT_DRAIN + c->number) > rank);
	enum run_end end = run(c, turn_end, true);
	set_hold(c, false);
	ranks_look(m); /* with nobody waiting the turn may have gone on past it */
	if (end == RUN_PAUSE)
		ranks->spinning |= UINT32_C(1) << c->number; /* until others have got on */
	if (end == RUN_PAUSE || end == RUN_WAITING)
		ranks->turn = 0;
	return end;
}

/* The agent of the highest rank that is enabled goes on: PCT's scheduler (recorder/strategies/pct.py). Agents that `order`
 * does not name come last, as in the default schedule. A turn ends at a multiple of RANK_LOOK_STEPS, and where it stands is
 * kept in `m->ranks`: it is the same schedule however often the caller stops on the way. */
static enum stop ranked_execute(struct machine *m, uint64_t order, uint64_t step_end)
{
	struct ranks *ranks = &m->ranks;
	while (m->step < step_end) {
		if (m->s.ended)
			return m->s.shutdown ? STOP_shutdown : STOP_exit;
		if (tap_full(&m->tap))
			return STOP_events;
		ranks_look(m);
		uint32_t rank = 0;
		if (ranks->turn)
			rank = rank_of(order, ranks->turn - 1);
		else
			while (rank < AGENT_COUNT && !agent_enabled(m, ranked_agent(order, rank), ranks->spinning))
				rank++;
		if (rank == AGENT_COUNT && ranks->spinning) {
			ranks->spinning = 0; /* everybody does: round and round */
			continue;
		}
		if (rank == AGENT_COUNT) {
			enum stop stop = auto_execute(m, m->step + 1);
			if (stop != STOP_steps)
				return stop;
			continue;
		}
		uint32_t agent = ranked_agent(order, rank);
		if (agent >= AGENT_DRAIN) {
			drain_step(&m->cpus[agent - AGENT_DRAIN]);
			continue;
		}
		ranks->turn = agent + 1;
		if (ranked_run(m, order, &m->cpus[agent], step_end) == RUN_TRACE)
			return STOP_trace;
	}
	return STOP_steps;
}

static enum stop run_record_execute(struct machine *m, struct cpu *c, uint64_t step_count, uint64_t *done, uint64_t step_max,
				    bool exact, bool stop_at_pause)
{
	assert(*done <= step_count);
	uint64_t left = step_count - *done, room = step_max - m->step, first = m->step;
	uint64_t step_end = m->step + (left < room ? left : room);
	while (m->step < step_end) {
		enum run_end end = run(c, step_end, stop_at_pause);
		*done += m->step - first;
		first = m->step;
		switch (end) {
		case RUN_TRACE: return STOP_trace;
		case RUN_EVENTS: return STOP_events;
		case RUN_BLOCKED: return STOP_blocked;
		case RUN_WAITING: return exact && *done < step_count ? STOP_diverged : STOP_plan;
		case RUN_PAUSE: return STOP_plan;
		case RUN_STEPS: break; /* also where an instruction brought the end of the run forward */
		}
	}
	return *done >= step_count ? STOP_plan : STOP_steps;
}

/* One record, from `cursor->done` on. STOP_plan: the record is finished. */
static enum stop record_execute(struct machine *m, const struct plan_record *r, uint64_t *done, uint64_t step_max, bool exact)
{
	struct cpu *c = &m->cpus[r->cpu];
	bool applied = true;
	uint64_t first = m->step;
	switch (r->op) {
	case PLAN_RUN: {
		set_hold(c, r->flags & PLAN_HOLD);
		m->makes_room = !exact || r->flags & PLAN_ROOM;
		enum stop stop = run_record_execute(m, c, r->arg, done, step_max, exact, !exact && !(r->flags & PLAN_ON));
		m->makes_room = false;
		set_hold(c, false);
		return stop;
	}
	case PLAN_DRAIN:
		while (*done < r->arg) {
			if (!c->s.store_count)
				return exact ? STOP_diverged : STOP_plan;
			if (m->step >= step_max)
				return STOP_steps;
			drain_step(c);
			++*done;
			if (tap_full(&m->tap))
				return STOP_events;
		}
		return STOP_plan;
	case PLAN_IRQ: applied = irq_step(c, r->arg); break;
	case PLAN_CHOICE: applied = choice_step(c, r->arg); break;
	case PLAN_EVICT: applied = evict_step(c, r->arg); break;
	case PLAN_AUTO: {
		if (exact)
			return STOP_diverged;
		uint64_t left = r->arg - *done, room = step_max - m->step;
		enum stop stop = auto_execute(m, m->step + (left < room ? left : room));
		*done += m->step - first;
		if (stop == STOP_steps && *done >= r->arg)
			return STOP_plan;
		return stop;
	}
	case PLAN_RANK: {
		if (exact)
			return STOP_diverged;
		uint64_t left = plan_rank_steps(r) - *done, room = step_max - m->step;
		if (!*done)
			m->ranks = (struct ranks){0};
		m->makes_room = true;
		enum stop stop = ranked_execute(m, r->arg, m->step + (left < room ? left : room));
		m->makes_room = false;
		*done += m->step - first;
		if (stop == STOP_steps && *done >= plan_rank_steps(r))
			return STOP_plan;
		return stop;
	}
	default: return exact ? STOP_diverged : STOP_plan;
	}
	if (applied)
		*done = 1;
	return !applied && exact ? STOP_diverged : STOP_plan;
}

enum stop plan_execute(struct machine *m, const struct plan_record *plan, uint64_t count, struct plan_cursor *cursor,
		       uint64_t step_max, bool exact)
{
	while (cursor->index < count) {
		if (m->s.ended && !exact)
			return m->s.shutdown ? STOP_shutdown : STOP_exit;
		if (m->step >= step_max)
			return STOP_steps;
		if (tap_full(&m->tap))
			return STOP_events;
		const struct plan_record *r = &plan[cursor->index];
		if (r->cpu >= m->cpu_count) {
			if (exact)
				return STOP_diverged;
			cursor->index++;
			continue;
		}
		enum stop stop = record_execute(m, r, &cursor->done, step_max, exact);
		/* A run or drain may end on its last step for another reason too: a full tap, a tracepoint. */
		bool counted = r->op == PLAN_RUN || r->op == PLAN_DRAIN;
		if (stop == STOP_plan || (counted && cursor->done >= r->arg)) {
			cursor->index++;
			cursor->done = 0;
		}
		if (stop != STOP_plan)
			return stop;
	}
	if (m->s.ended)
		return m->s.shutdown ? STOP_shutdown : STOP_exit;
	return STOP_plan;
}
