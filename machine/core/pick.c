#include "pick.h"

#include "agents.h"
#include "store_buffer.h"
#include "visible.h"

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t draw(struct pick *p)
{
	uint64_t x = p->seed += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void start(struct machine *m, const struct plan_record *r)
{
	struct pick *p = &m->pick;
	p->policy = r->flags & PICK_POLICY_MASK;
	p->seed = r->arg;
	p->steps = 0;
	p->steps_expected = r->zero ? r->zero : 1;
	p->ticks = r->flags >> PICK_TICKS_SHIFT & PICK_TICKS_MASK;
	p->drawn = 0;
	p->lowered = 0;
	uint32_t depth = r->flags >> PICK_DEPTH_SHIFT & PICK_DEPTH_MASK;
	p->change_count = 0;
	for (uint32_t i = 1; i < depth; i++)
		p->change[p->change_count++] = draw(p) % p->steps_expected;
	for (uint32_t i = 0; i < AGENT_COUNT; i++)
		p->left[i] = p->weights[i];
	agents_start(m, r->flags & PICK_EAGER);
}

/* A bit of `agents`, which is not empty, all with the same probability. */
static uint32_t any_of(struct pick *p, uint32_t agents)
{
	uint32_t skip = (uint32_t)(draw(p) % (uint32_t)__builtin_popcount(agents));
	while (skip--)
		agents &= agents - 1;
	return (uint32_t)__builtin_ctz(agents);
}

static uint32_t pick_walk(struct pick *p, uint32_t enabled)
{
	uint64_t sum = 0;
	for (uint32_t rest = enabled; rest; rest &= rest - 1)
		sum += p->left[__builtin_ctz(rest)];
	if (!sum)
		return any_of(p, enabled);
	uint64_t at = draw(p) % sum;
	uint32_t rest = enabled;
	for (; at >= p->left[__builtin_ctz(rest)]; rest &= rest - 1)
		at -= p->left[__builtin_ctz(rest)];
	return (uint32_t)__builtin_ctz(rest);
}

static uint32_t highest(struct pick *p, uint32_t enabled)
{
	uint32_t best = (uint32_t)__builtin_ctz(enabled);
	for (uint32_t rest = enabled; rest; rest &= rest - 1) {
		uint32_t agent = (uint32_t)__builtin_ctz(rest);
		if (!(p->drawn >> agent & 1)) {
			p->drawn |= 1u << agent;
			p->priority[agent] = draw(p) | UINT64_C(1) << 63; /* above those that were lowered */
		}
		if (p->priority[agent] > p->priority[best])
			best = agent;
	}
	return best;
}

/* Whether the run's visible step number p->steps is one of its change points. */
static bool changes(const struct pick *p)
{
	for (uint32_t i = 0; i < p->change_count; i++)
		if (p->change[i] == p->steps)
			return true;
	return false;
}

static uint32_t pick_pct(struct pick *p, uint32_t enabled)
{
	uint32_t agent = highest(p, enabled);
	if (!changes(p))
		return agent;
	p->priority[agent] = AGENT_COUNT - ++p->lowered;
	return highest(p, enabled);
}

/* Partial order sampling: those that raced with the step just taken draw anew, as does who took it. */
static void race(struct machine *m, uint32_t taken)
{
	struct pick *p = &m->pick;
	p->drawn &= ~(1u << taken);
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		const struct agent_cpu *a = &m->agents.cpu[i];
		if (a->at == AT_VISIBLE && notes_conflict(m->watch.notes, m->watch.count, &a->note, 1))
			p->drawn &= ~(1u << (AGENT_CPU + i));
		const struct cpu *c = &m->cpus[i];
		if (!c->s.store_count)
			continue;
		const struct store_entry *e = store_buffer_entry(c, 0);
		struct visible_note note = {.phys = e->phys, .size = e->size, .writes = true};
		if (notes_conflict(m->watch.notes, m->watch.count, &note, 1))
			p->drawn &= ~(1u << (AGENT_DRAIN + i));
	}
}

/* A tick, with such a probability that all of them come within the run. */
static uint32_t pick_tick(struct machine *m)
{
	struct pick *p = &m->pick;
	if (!p->ticks)
		return 0;
	uint64_t left = p->steps_expected > p->steps ? p->steps_expected - p->steps : 1;
	if (draw(p) % left >= p->ticks)
		return 0;
	p->ticks--; /* also if nobody takes it now: what comes is up to the place */
	return agents_ticks(m);
}

enum stop pick_execute(struct machine *m, const struct plan_record *r, bool fresh, uint64_t step_end)
{
	struct pick *p = &m->pick;
	if (fresh)
		start(m, r);
	while (m->step < step_end) {
		enum stop stop = agents_settle(m, step_end);
		if (stop != STOP_plan)
			return stop;
		if ((stop = machine_over(m)) != STOP_plan)
			return stop;
		uint32_t enabled = agents_enabled(m), ticks;
		if (!enabled) {
			stop = agents_stuck(m);
			if (stop != STOP_plan)
				return stop;
			continue;
		}
		if ((ticks = pick_tick(m))) {
			agents_take(m, any_of(p, ticks));
			continue;
		}
		uint32_t agent;
		switch (p->policy) {
		case PICK_POS: agent = highest(p, enabled); break;
		case PICK_PCT: agent = pick_pct(p, enabled); break;
		default: agent = pick_walk(p, enabled); break;
		}
		agents_take(m, agent);
		p->steps++;
		if (p->left[agent])
			p->left[agent]--;
		if (p->policy == PICK_POS)
			race(m, agent);
	}
	return STOP_steps;
}
