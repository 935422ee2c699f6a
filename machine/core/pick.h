/* Random choice among agents, one visible step after the other: random walk, partial order sampling, PCT.
 * recorder/strategies has the papers. */
#ifndef RACETAPE_PICK_H
#define RACETAPE_PICK_H

#include "execute.h"

enum pick_policy {
	PICK_WALK, /* each agent as probable as it has steps left (m->pick.weights), or all the same */
	PICK_POS,  /* priorities, drawn anew where steps race: partial order sampling */
	PICK_PCT,  /* priorities, one lowered at each of depth - 1 random steps */
	PICK_COUNT,
};

/* A PLAN_PICK record: `arg` is the seed, `zero` how many visible steps a run is thought to have, and `flags` */
enum {
	PICK_POLICY_MASK = 7,
	PICK_EAGER = 8, /* stores drain at once */
	PICK_DEPTH_SHIFT = 4,
	PICK_DEPTH_MASK = 7, /* of PCT */
	PICK_TASKS = 128, /* words that tasks share are visible, too */
	PICK_TICKS_SHIFT = 8,
	PICK_TICKS_MASK = 15, /* timer ticks, spread over the run at random */
};

ALWAYS_INLINE enum shared_scope pick_scope(const struct plan_record *r)
{
	return r->flags & PICK_TASKS ? SHARED_TASKS : SHARED_CPUS;
}

/* From the beginning if `fresh`, else from where the last call stopped; to the end of the run or `step_end`. */
enum stop pick_execute(struct machine *m, const struct plan_record *r, bool fresh, uint64_t step_end);

#endif
