#include "auto.h"

#include "interrupt.h"
#include "spin.h"
#include "steps.h"
#include "tap.h"

enum { TICKS_IN_VAIN_MAX = 256 }; /* so many ticks that do not end what goes in circles */

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

/* A tick for the first CPU that takes it, from `first` on. */
static bool auto_tick(struct machine *m, uint32_t first)
{
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		struct cpu *c = &m->cpus[(first + i) % m->cpu_count];
		int vector = timer_vector(c);
		if (vector >= 0 && step_irq(c, (uint64_t)vector)) {
			m->auto_cpu = c->number;
			return true;
		}
	}
	return false;
}

bool any_waits_for_choice(const struct machine *m)
{
	for (uint32_t i = 0; i < m->cpu_count; i++)
		if (m->cpus[i].s.waiting == WAIT_CHOICE)
			return true;
	return false;
}

/* At PAUSE: whether the default schedule goes in circles (Brent, BIT Numerical Mathematics 20, 1980, finds them). Registers of all CPUs
 * are compared, and if they come again all of the state is; it is a circle if that comes again twice. */
static bool auto_loops(struct machine *m)
{
	uint64_t digest = m->auto_cpu;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		struct cpu *c = &m->cpus[i];
		digest = (digest ^ spin_digest(c) ^ c->s.waiting) * UINT64_C(0x9e3779b97f4a7c15);
		digest ^= digest >> 29;
	}
	uint64_t pauses = ++m->auto_loop.pauses;
	if (!(pauses & (pauses - 1))) {
		m->auto_loop.digest = digest;
		m->auto_loop.whole = 0;
		return false;
	}
	if (digest != m->auto_loop.digest)
		return false;
	uint64_t whole = 1;
	for (uint32_t i = 0; i < m->cpu_count; i++)
		whole = whole * UINT64_C(0x9e3779b97f4a7c15) ^ spin_whole_digest(&m->cpus[i]);
	whole |= 1;
	bool again = whole == m->auto_loop.whole;
	m->auto_loop.whole = whole;
	return again;
}

/* Whether a circle is not among the last ones: by the registers, which hold what those in it have read. Who waits for a tick to
 * count something gets on. */
static bool auto_new_circle(struct machine *m)
{
	for (uint32_t i = 0; i < CIRCLES_MAX; i++)
		if (m->auto_loop.circles[i] == m->auto_loop.digest)
			return false;
	m->auto_loop.circles[m->auto_loop.circle_count++ % CIRCLES_MAX] = m->auto_loop.digest;
	m->auto_loop.ticks = 0;
	return true;
}

enum stop auto_execute(struct machine *m, uint64_t step_end)
{
	while (m->step < step_end) {
		enum stop over = machine_over(m);
		if (over != STOP_plan)
			return over;
		if (tap_full(&m->tap))
			return STOP_events;
		struct cpu *holder = first_with_stores(m);
		if (holder) {
			step_drain(holder);
			continue;
		}
		struct cpu *chosen = auto_choose(m);
		if (!chosen) {
			if (any_waits_for_choice(m))
				return STOP_choice;
			if (!auto_tick(m, 0))
				return STOP_idle;
			continue;
		}
		m->auto_cpu = chosen->number;
		int pending = pending_interrupt(chosen);
		if (pending >= 0) {
			step_irq(chosen, (uint64_t)pending);
			continue;
		}
		/* What is pending may become deliverable with any instruction. */
		uint64_t run_end = interrupt_raised(chosen) ? m->step + 1 : step_end;
		if (m->pc && pc_due(m) < run_end)
			run_end = pc_due(m);
		enum run_end end = step_run(chosen, run_end, true);
		switch (end) {
		case RUN_PAUSE:
			m->auto_cpu = (chosen->number + 1) % m->cpu_count;
			/* A PC's time goes on by itself. */
			if ((m->pc && pc_due(m) != UINT64_MAX && interrupts_open(chosen)) || !auto_loops(m))
				break;
			if (any_waits_for_choice(m))
				return STOP_choice;
			if (!auto_new_circle(m) && m->auto_loop.ticks++ >= TICKS_IN_VAIN_MAX)
				return STOP_livelock;
			/* Each timer in turn: it may be any one's handler that ends the circle. */
			if (!auto_tick(m, m->auto_loop.ticks % m->cpu_count))
				return STOP_livelock;
			m->auto_loop.pauses = 0;
			break;
		case RUN_WAITING: m->auto_cpu = 0; break;
		case RUN_TRACE: return STOP_trace;
		case RUN_BLOCKED: /* cannot be: nothing is buffered, */
		case RUN_VISIBLE: /* and nothing asks */
		case RUN_STEPS:
		case RUN_EVENTS: break;
		}
	}
	return STOP_steps;
}
