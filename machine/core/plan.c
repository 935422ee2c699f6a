/* Plans: what runs next, as data. Exact plans replay a tape; tentative ones are what strategies propose. */
#include "agents.h"
#include "auto.h"
#include "pick.h"
#include "steps.h"
#include "tap.h"
#include "visible.h"

static enum stop run_record_execute(struct machine *m, struct cpu *c, uint64_t step_count, uint64_t *done, uint64_t step_max,
				    bool exact, bool stop_at_pause)
{
	assert(*done <= step_count);
	uint64_t left = step_count - *done, room = step_max - m->step, first = m->step;
	uint64_t step_end = m->step + (left < room ? left : room);
	while (m->step < step_end) {
		enum run_end end = step_run(c, step_end, stop_at_pause);
		*done += m->step - first;
		first = m->step;
		switch (end) {
		case RUN_TRACE: return STOP_trace;
		case RUN_EVENTS: return STOP_events;
		case RUN_BLOCKED: return STOP_blocked;
		case RUN_WAITING: return exact && *done < step_count ? STOP_diverged : STOP_plan;
		case RUN_VISIBLE: /* cannot be: nothing asks */
		case RUN_PAUSE: return STOP_plan;
		case RUN_STEPS: break; /* also where an instruction brought the end of the run forward */
		}
	}
	return *done >= step_count ? STOP_plan : STOP_steps;
}

enum { STEP_EAGER = 1, STEP_TASKS = 2 };

static enum shared_scope step_scope(const struct plan_record *r)
{
	return r->zero & STEP_TASKS ? SHARED_TASKS : SHARED_CPUS;
}

/* `arg` visible steps of agent `flags`, stores at once or not and of the scope that `zero` says; passed over where it cannot
 * go on. */
static enum stop steps_execute(struct machine *m, const struct plan_record *r, uint64_t *done, uint64_t step_max)
{
	if (!*done) {
		agents_forget(m);
		m->agents.eager = r->zero & STEP_EAGER;
	}
	for (; *done < r->arg; ++*done) {
		enum stop stop = agents_settle(m, step_max);
		if (stop != STOP_plan)
			return stop;
		if (m->step >= step_max)
			return STOP_steps;
		uint32_t agent = r->flags;
		if (agent >= AGENT_COUNT || !((agents_enabled(m) | agents_ticks(m)) >> agent & 1))
			return STOP_plan;
		agents_take(m, agent);
	}
	return STOP_plan;
}

/* One record, from `cursor->done` on. STOP_plan: the record is finished. */
static enum stop record_execute(struct machine *m, const struct plan_record *r, uint64_t *done, uint64_t step_max, bool exact)
{
	struct cpu *c = &m->cpus[r->cpu];
	bool applied = true;
	uint64_t first = m->step;
	switch (r->op) {
	case PLAN_RUN: {
		step_hold(c, r->flags & PLAN_HOLD);
		m->makes_room = !exact || r->flags & PLAN_ROOM;
		enum stop stop = run_record_execute(m, c, r->arg, done, step_max, exact, !exact && !(r->flags & PLAN_ON));
		m->makes_room = false;
		step_hold(c, false);
		return stop;
	}
	case PLAN_DRAIN:
		while (*done < r->arg) {
			if (!c->s.store_count)
				return exact ? STOP_diverged : STOP_plan;
			if (m->step >= step_max)
				return STOP_steps;
			step_drain(c);
			++*done;
			if (machine_over(m) != STOP_plan)
				return STOP_plan;
			if (tap_full(&m->tap))
				return STOP_events;
		}
		return STOP_plan;
	case PLAN_IRQ: applied = step_irq(c, r->arg); break;
	case PLAN_CHOICE: applied = step_choice(c, r->arg); break;
	case PLAN_EVICT: applied = step_evict(c, r->arg); break;
	case PLAN_AUTO: {
		if (exact)
			return STOP_diverged;
		uint64_t left = r->arg - *done, room = step_max - m->step;
		if (!*done)
			m->auto_loop = (struct auto_loop){0};
		enum stop stop = auto_execute(m, m->step + (left < room ? left : room));
		*done += m->step - first;
		if (stop == STOP_steps && *done >= r->arg)
			return STOP_plan;
		return stop;
	}
	case PLAN_PICK: {
		enum stop stop = pick_execute(m, r, !*done, step_max);
		*done += m->step - first;
		return stop;
	}
	case PLAN_STEP:
		return steps_execute(m, r, done, step_max);
	default: return exact ? STOP_diverged : STOP_plan;
	}
	if (applied)
		*done = 1;
	return !applied && exact ? STOP_diverged : STOP_plan;
}

enum stop plan_execute(struct machine *m, const struct plan_record *plan, uint64_t count, struct plan_cursor *cursor,
		       uint64_t step_max, bool exact)
{
	m->pool.looks = !exact;
	if (count) /* what is repeated goes on */
		*(exact ? &m->pool.use : &m->pool.met) = (struct pool_use){0};
	while (cursor->index < count) {
		if (!exact && machine_over(m) != STOP_plan)
			return machine_over(m);
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
		const struct shared *set = NULL;
		if (r->op == PLAN_PICK || r->op == PLAN_STEP) {
			set = visible_scope(m, r->op == PLAN_PICK ? pick_scope(r) : step_scope(r));
			if (exact || !set || m->tap.on)
				return STOP_diverged;
		}
		if (m->watch.set != set)
			visible_switch(m, set);
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
	return machine_over(m);
}
