/* The log of exact choices: what the schedule really was, in plan records. */
#ifndef RACETAPE_CHOICES_H
#define RACETAPE_CHOICES_H

#include "machine.h"

/* Appends a record, merging runs and drains that go on. */
void choices_append(struct machine *m, uint8_t op, uint8_t cpu, uint16_t flags, uint64_t arg);
/* Logs the steps that the current run of `c` has taken since the last time. */
void choices_log_run(struct cpu *c);
/* Logs a drain that happens within a run, at the current step, and the steps of the run before it. */
void choices_log_drain(struct cpu *c);

#endif
