/* The log of exact choices: what the schedule really was, in plan records. */
#ifndef RACETAPE_CHOICES_H
#define RACETAPE_CHOICES_H

#include "machine.h"

/* Appends a record, merging runs and drains that go on. PLAN_ROOM does not keep runs apart: it says something only of steps
 * at which the CPU had to wait, and a run without it that got this far had none. */
void choices_append(struct machine *m, uint8_t op, uint8_t cpu, uint16_t flags, uint64_t arg);

#endif
