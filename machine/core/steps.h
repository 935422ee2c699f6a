/* What a schedule can do, one thing at a time. Each is logged as an exact choice. */
#ifndef RACETAPE_STEPS_H
#define RACETAPE_STEPS_H

#include "execute.h"

/* Whether the stores of a CPU stay in its buffer while it runs. */
void step_hold(struct cpu *c, bool hold);
/* Runs `c`, as cpu_run does; one choice. */
enum run_end step_run(struct cpu *c, uint64_t step_end, bool stop_at_pause);
/* The oldest store reaches memory; the buffer must not be empty. */
void step_drain(struct cpu *c);
/* These take one step, or return false with nothing done if they are not possible now. */
bool step_irq(struct cpu *c, uint64_t vector);
bool step_choice(struct cpu *c, uint64_t answer);
bool step_evict(struct cpu *c, uint64_t page);

/* Whether a plan's IRQ of this vector could be delivered now. */
bool interrupt_possible(const struct cpu *c, uint64_t vector);
/* What would be delivered next without the schedule saying more: a non-maskable interrupt, or the highest pending one
 * that the CPU accepts; -1 if there is none. */
int pending_interrupt(const struct cpu *c);

/* Whether an interrupt waits for `c`, whether it takes it now or not. */
bool interrupt_raised(const struct cpu *c);
/* Vector of the timer's interrupt that could be delivered to `c` now though it is not due, as far as the timer goes; -1 if there
 * is none. */
int timer_vector(const struct cpu *c);

ALWAYS_INLINE bool runnable(const struct cpu *c)
{
	return c->s.waiting == WAIT_NONE;
}

#endif
