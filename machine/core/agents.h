/* Agents: who can make the next visible step (exploration.md 2.1).
 *
 * Agent n is CPU n, which runs to and including its next visible step; 8 + n its store buffer, which drains its oldest store;
 * 16 + n the interrupt pending at it; 24 + n its timer. Between two choices every
 * CPU stands before its next visible step, or waits. What is local in between runs on by itself, and stores to words that
 * nobody shares drain by themselves when they are the oldest.
 *
 * A CPU that comes by in the same state as before, registers, memory and buffer, spins: it is passed over until somebody changes
 * what it has read. That may be more than there is room to remember; so before everybody is said to spin in vain, those who do
 * are let go on for a while.
 *
 * A few things are no choice though others may notice them, and are remembered as `overlooked`: what a trap behind an instruction or a
 * frame that needs more room than was asked for does to shared words within a local run, and an instruction that reads the time.
 *
 * Needs Machine.watch, and the tap off: a run that stops before an instruction may have looked up a translation for it
 * earlier than the exact choices will. What is to be recorded is replayed from its choices. */
#ifndef RACETAPE_AGENTS_H
#define RACETAPE_AGENTS_H

#include "execute.h"
#include "visible.h"

/* Starts over from the machine as it stands. `eager`: stores drain at once (sequential consistency), buffers are no agents. */
void agents_start(struct machine *m, bool eager);
/* What has been found out about the CPUs is forgotten: the machine was moved. Options stay. */
void agents_forget(struct machine *m);
/* Lets every CPU run to its next visible step. STOP_plan when all stand there; STOP_steps at `step_end`; or why it is over. */
enum stop agents_settle(struct machine *m, uint64_t step_end);
/* Agents that could go on, as bits, ticks not among them; all CPUs stand. */
uint32_t agents_enabled(const struct machine *m);
/* CPUs whose timer could tick, as bits of their agents. */
uint32_t agents_ticks(const struct machine *m);
/* Lets an enabled agent (or tick) take its visible step; what it touches is in m->watch.notes. */
void agents_take(struct machine *m, uint32_t agent);
/* With no agent enabled: who seemed to spin goes on, a timer ticks (STOP_plan: look again); or why
 * it is over. */
enum stop agents_stuck(struct machine *m);

/* Whether one of the steps that touched these writes what the other touches; the end of the run concerns everybody. */
ALWAYS_INLINE bool notes_conflict(const struct visible_note *a, uint32_t a_count, const struct visible_note *b, uint32_t b_count)
{
	for (uint32_t i = 0; i < a_count; i++)
		for (uint32_t j = 0; j < b_count; j++)
			if ((a[i].phys | b[j].phys) & VISIBLE_PORT ||
			    ((a[i].writes || b[j].writes) && a[i].phys < b[j].phys + b[j].size && b[j].phys < a[i].phys + a[i].size))
				return true;
	return false;
}

#endif
