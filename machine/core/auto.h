#ifndef RACETAPE_AUTO_H
#define RACETAPE_AUTO_H

#include "execute.h"

/* The default schedule: the CPU that runs goes on until it waits or spins (PAUSE), then the next in turn (after a wait:
 * the lowest). Stores drain at once, those that an earlier part of the plan left held first; pending IPIs come before
 * the next instruction; with every CPU waiting, or going in circles from PAUSE to PAUSE, there is a tick; if many of those end no
 * circle it is a livelock. Each turn of the loop takes one step or one run. */
enum stop auto_execute(struct machine *m, uint64_t step_end);
bool any_waits_for_choice(const struct machine *m);

#endif
