/* Running CPUs: the hot loop, and plans (docs/tape-format.md, "plan records") on top of it. */
#ifndef RACETAPE_EXECUTE_H
#define RACETAPE_EXECUTE_H

#include "machine.h"

#define STOPS(STOP)    \
	STOP(plan)     \
	STOP(steps)    \
	STOP(events)   \
	STOP(exit)     \
	STOP(idle)     \
	STOP(livelock) \
	STOP(choice)   \
	STOP(shutdown) \
	STOP(freed)    \
	STOP(trace)    \
	STOP(diverged) \
	STOP(blocked)

enum stop {
#define STOP(name) STOP_##name,
	STOPS(STOP)
#undef STOP
	STOP_COUNT
};

/* Why the machine does not go on; STOP_plan if it does. */
ALWAYS_INLINE enum stop machine_over(const struct machine *m)
{
	if (unlikely(m->s.ended))
		return m->s.shutdown ? STOP_shutdown : STOP_exit;
	return unlikely(m->pool.use.access) ? STOP_freed : STOP_plan;
}

/* Why cpu_run came back. */
enum run_end {
	RUN_STEPS,   /* as many steps as were asked for */
	RUN_VISIBLE, /* the next instruction touches a shared word, and the run asks */
	RUN_BLOCKED, /* the next instruction has to wait for the CPU's own store buffer, and no room is to be made */
	RUN_WAITING, /* the CPU waits (halt, choice, start) or the run is over */
	RUN_PAUSE,   /* after PAUSE, if the caller wants to know */
	RUN_EVENTS,  /* the tap is full */
	RUN_TRACE,   /* after the tracepoint the caller waits for */
};

/* Executes instructions of `c` until `step_end` at most; with m->makes_room the oldest store drains where it has to wait. */
enum run_end cpu_run(struct cpu *c, uint64_t step_end, bool stop_at_pause);

/* Whether `arg` is a number of steps. */
ALWAYS_INLINE bool plan_counts_steps(const struct plan_record *r)
{
	return r->op == PLAN_RUN || r->op == PLAN_DRAIN || r->op == PLAN_AUTO || r->op == PLAN_STEP;
}

/* Steps that a record may take. */
ALWAYS_INLINE uint64_t plan_steps_max(const struct plan_record *r)
{
	if (r->op == PLAN_PICK)
		return UINT64_MAX;
	return plan_counts_steps(r) ? r->arg : 1;
}

struct plan_cursor {
	uint64_t index; /* of the current record */
	uint64_t done;	/* steps already taken of it */
};

/* See Machine.execute in _core.pyi. `cursor->done` is at most the record's `arg` where that is a number of steps. */
enum stop plan_execute(struct machine *m, const struct plan_record *plan, uint64_t count, struct plan_cursor *cursor,
		       uint64_t step_max, bool exact);

#endif
