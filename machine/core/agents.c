#include "agents.h"

#include "access.h"
#include "apic.h"
#include "auto.h"
#include "classes.h"
#include "memory.h"
#include "mmu.h"
#include "spin.h"
#include "steps.h"
#include "store_buffer.h"
#include "tap.h"
#include "visible.h"

enum {
	LOCAL_STEPS_MAX = 1 << 14, /* after so many steps without a visible one it is asked whether the CPU loops for ever */
	LOOP_STEPS_MAX = 256,	   /* steps of such a loop */
	TICKS_IN_VAIN_MAX = 256,   /* so many ticks that change nothing of what those who spin read */
	PATIENCE_MAX = 1024,	   /* so often those who seem to spin are let go on while nothing changes */
};

void agents_forget(struct machine *m)
{
	for (uint32_t i = 0; i < CPU_MAX; i++)
		m->agents.cpu[i] = (struct agent_cpu){0};
}

void agents_start(struct machine *m, bool eager)
{
	assert(m->watch.set && !m->tap.on);
	m->agents = (struct agents){.eager = eager};
	agents_forget(m);
	classes_start(m);
	m->classes.off = false;
}

/* --- spinning --- */

static void spin_reset(struct agent_cpu *a)
{
	a->spinning = false;
	a->seen_count = a->read_count = 0;
}

/* After many local steps: whether the CPU is in a loop that nothing local can end, as one who waits for a word that nobody knew to
 * be shared. From where it stands it goes on by single steps for a while, to see whether that state comes again, twice. */
static bool loops(struct cpu *c, struct agent_cpu *a)
{
	if (!a->loop_steps) {
		a->loop_steps = LOOP_STEPS_MAX;
		a->loop = spin_digest(c);
		a->loop_whole = 0;
		return false;
	}
	if (spin_digest(c) == a->loop) {
		uint64_t whole = spin_whole_digest(c) | 1;
		if (a->loop_whole == whole)
			return true;
		a->loop_whole = whole;
	}
	if (!--a->loop_steps)
		a->local_steps = 1;
	return false;
}

/* Called where a CPU stands before a visible step. Digests of registers and stack are cheap; only if one comes again, memory is
 * looked at: a loop may count where nobody else looks. It spins if it comes by a third time and memory is as it was. */
static void spin_look(struct cpu *c, struct agent_cpu *a)
{
	uint64_t now = spin_digest(c);
	uint32_t seen = a->seen_count < SPIN_SEEN_MAX ? a->seen_count : SPIN_SEEN_MAX;
	for (uint32_t i = 0; i < seen; i++) {
		if (a->seen[i] != now)
			continue;
		uint64_t whole = spin_whole_digest(c) | 1;
		a->spinning = a->whole[i] == whole;
		a->whole[i] = whole;
		return;
	}
	uint32_t slot = a->seen_count++ % SPIN_SEEN_MAX;
	a->seen[slot] = now;
	a->whole[slot] = 0;
}

/* What a CPU has read decides when it is looked at again. With more than there is room for it is not said to spin. */
static void spin_note_read(struct agent_cpu *a, const struct visible_note *note)
{
	for (uint32_t i = 0; i < a->read_count; i++)
		if (a->read[i].phys == note->phys && a->read[i].size >= note->size)
			return;
	if (a->read_count == SPIN_READ_MAX)
		spin_reset(a);
	a->read[a->read_count++] = *note;
}

/* Somebody has changed what `notes` say. */
static void spin_wake(struct machine *m, uint32_t number, const struct visible_note *notes, uint32_t count)
{
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		struct agent_cpu *a = &m->agents.cpu[i];
		if (i == number || !(a->at == AT_LOOP || notes_conflict(notes, count, a->read, a->read_count)))
			continue;
		if (a->spinning)
			m->agents.ticks_in_vain = m->agents.patience = 0;
		spin_reset(a);
	}
}

/* --- running --- */

/* Drains the oldest store if nobody else looks at it. */
static bool drain_private(struct cpu *c)
{
	if (!c->s.store_count)
		return false;
	const struct store_entry *e = store_buffer_entry(c, 0);
	if (visible_contains(c->machine, e->phys, e->size))
		return false;
	step_drain(c);
	return true;
}

/* Runs `c` up to its next visible step, or until it waits. */
static enum stop settle(struct cpu *c, uint64_t step_end)
{
	struct machine *m = c->machine;
	struct agent_cpu *a = &m->agents.cpu[c->number];
	while (a->at == AT_UNKNOWN) {
		enum stop over = machine_over(m);
		if (over != STOP_plan)
			return over;
		if (!runnable(c)) {
			a->at = AT_REST;
			break;
		}
		if (m->step >= step_end)
			return STOP_steps;
		/* What is pending may become deliverable with any instruction: that is where the CPU has to stand, too. */
		bool watch = interrupt_raised(c);
		if (watch && a->local_steps && pending_interrupt(c) >= 0) {
			a->at = AT_INTERRUPT;
			break;
		}
		uint64_t first = m->step, most = watch || a->loop_steps ? 1 : LOCAL_STEPS_MAX - a->local_steps;
		uint64_t end = step_end - first < most ? step_end : first + most;
		step_hold(c, !m->agents.eager);
		m->watch.asks = m->watch.settling = true;
		m->watch.count = m->watch.undo_count = 0;
		m->watch.stores_step = UINT64_MAX;
		m->watch.stopped = m->watch.needs_room = false;
		enum run_end run_end = step_run(c, end, false);
		m->watch.asks = m->watch.settling = false;
		step_hold(c, false);
		a->local_steps += m->step - first;
		switch (run_end) {
		case RUN_VISIBLE:
			if (m->watch.needs_room) {
				if (!drain_private(c))
					a->at = AT_BUFFER;
				break;
			}
			a->at = AT_VISIBLE;
			a->note = m->watch.stopped_at;
			spin_look(c, a);
			break;
		case RUN_BLOCKED:
			if (!drain_private(c))
				a->at = AT_BUFFER;
			break;
		case RUN_TRACE: return STOP_trace;
		case RUN_WAITING:
		case RUN_PAUSE:
		case RUN_EVENTS:
		case RUN_STEPS: break;
		}
		if (a->at == AT_UNKNOWN && a->local_steps >= LOCAL_STEPS_MAX && loops(c, a)) {
			a->at = AT_LOOP;
			a->spinning = true;
		}
	}
	a->loop_steps = 0;
	/* What is then the oldest store is for its agent to drain. */
	do {
		if (m->step >= step_end)
			return STOP_steps;
	} while (drain_private(c));
	return STOP_plan;
}

enum stop agents_settle(struct machine *m, uint64_t step_end)
{
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		struct agent_cpu *a = &m->agents.cpu[i];
		if (a->at == AT_REST && runnable(&m->cpus[i]))
			a->at = AT_UNKNOWN; /* an IPI has started it */
		enum stop stop = settle(&m->cpus[i], step_end);
		if (stop != STOP_plan)
			return stop;
	}
	return STOP_plan;
}

uint32_t agents_enabled(const struct machine *m)
{
	uint32_t enabled = 0;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		const struct agent_cpu *a = &m->agents.cpu[i];
		const struct cpu *c = &m->cpus[i];
		if (a->at != AT_REST && a->at != AT_BUFFER && !a->spinning)
			enabled |= 1u << (AGENT_CPU + i);
		if (c->s.store_count)
			enabled |= 1u << (AGENT_DRAIN + i);
		if (interrupt_raised(c) && pending_interrupt(c) >= 0)
			enabled |= 1u << (AGENT_INTERRUPT + i);
	}
	return enabled;
}

uint32_t agents_ticks(const struct machine *m)
{
	uint32_t enabled = 0;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		int vector = timer_vector(&m->cpus[i]);
		if (vector >= 0 && interrupt_possible(&m->cpus[i], (uint64_t)vector))
			enabled |= 1u << (AGENT_TICK + i);
	}
	return enabled;
}

static void take_interrupt(struct cpu *c, int vector)
{
	struct machine *m = c->machine;
	struct agent_cpu *a = &m->agents.cpu[c->number];
	/* Whether it merges with one that is sent, and when it was pending, depends on the order. */
	m->watch.notes[m->watch.count++] = (struct visible_note){.phys = APIC_BASE + APIC_ICR, .size = 4, .writes = true};
	step_irq(c, (uint64_t)vector);
	spin_reset(a);
	a->at = AT_UNKNOWN;
	a->local_steps = 0;
}

static void take_drain(struct cpu *c)
{
	struct machine *m = c->machine;
	step_drain(c);
	if (m->agents.cpu[c->number].at == AT_BUFFER)
		m->agents.cpu[c->number].at = AT_UNKNOWN;
}

/* What memory holds where a note is, as far as that can be told. */
static uint64_t noted_value(const struct machine *m, const struct visible_note *note)
{
	bool small = note->size <= 8 && memory_contains(&m->memory, note->phys, note->size);
	return small ? bytes_load_any(m->memory.ram + note->phys, (uint32_t)note->size) : m->step;
}

/* Returns whether nothing has changed, though something may have been written: by trying a lock that is taken. */
static bool take_step(struct cpu *c)
{
	struct machine *m = c->machine;
	struct agent_cpu *a = &m->agents.cpu[c->number];
	bool same = false;
	if (a->at == AT_VISIBLE) {
		uint64_t before = noted_value(m, &a->note);
		step_hold(c, !m->agents.eager);
		step_run(c, m->step + 1, false);
		step_hold(c, false);
		same = noted_value(m, &a->note) == before;
		for (uint32_t i = 0; i < m->watch.count; i++) {
			const struct visible_note *note = &m->watch.notes[i];
			same &= !note->writes || (note->locked && note->phys == a->note.phys && note->size == a->note.size);
		}
		for (uint32_t i = 0; i < m->watch.count; i++)
			spin_note_read(a, &m->watch.notes[i]);
	}
	a->at = AT_UNKNOWN;
	a->local_steps = 0;
	return same;
}

void agents_take(struct machine *m, uint32_t agent)
{
	uint32_t number = agent % CPU_MAX;
	struct cpu *c = &m->cpus[number];
	struct agent_cpu *a = &m->agents.cpu[number];
	bool same = false;
	m->watch.count = m->watch.drained = 0;
	switch (agent - number) {
	case AGENT_CPU: same = take_step(c); break;
	case AGENT_DRAIN: take_drain(c); break;
	case AGENT_INTERRUPT: take_interrupt(c, pending_interrupt(c)); break;
	default:
		take_interrupt(c, timer_vector(c));
		m->agents.ticks++;
		break;
	}
	if (!m->classes.off)
		classes_step(m, agent, agent < AGENT_DRAIN ? c->pc : 0, NULL);
	bool writes = false;
	for (uint32_t i = 0; i < m->watch.count; i++)
		writes |= m->watch.notes[i].writes;
	if (writes && !same) {
		if (!m->agents.ticks_in_vain) /* what a timer's handler writes is no progress */
			m->agents.patience = 0;
		spin_reset(a);
		spin_wake(m, number, m->watch.notes, m->watch.count);
	}
}

enum stop agents_stuck(struct machine *m)
{
	struct agents *agents = &m->agents;
	bool spinning = false;
	for (uint32_t i = 0; i < m->cpu_count; i++)
		spinning |= agents->cpu[i].spinning;
	if (spinning && agents->patience++ < PATIENCE_MAX) {
		for (uint32_t i = 0; i < m->cpu_count; i++)
			spin_reset(&agents->cpu[i]);
		return STOP_plan;
	}
	if (any_waits_for_choice(m))
		return STOP_choice; /* the answer may end it */
	uint32_t ticks = agents_ticks(m);
	if (ticks && (!spinning || agents->ticks_in_vain < TICKS_IN_VAIN_MAX)) {
		/* Each timer in turn: it may be any one's handler that ends it. */
		uint32_t first = spinning ? agents->ticks_in_vain++ % m->cpu_count : 0;
		uint32_t behind = ticks >> (AGENT_TICK + first) << (AGENT_TICK + first);
		agents_take(m, (uint32_t)__builtin_ctz(behind ? behind : ticks));
		return STOP_plan;
	}
	return spinning ? STOP_livelock : STOP_idle;
}
