/* Whether a CPU goes in circles: what is compared for it. Flags, system registers and translations are not part of it. */
#ifndef RACETAPE_SPIN_H
#define RACETAPE_SPIN_H

#include "machine.h"

/* Registers, and what is on top of the stack: code that comes by for another reason has other locals or callers. Cheap. */
uint64_t spin_digest(struct cpu *c);
/* All of memory, and what the CPU's buffer holds on top of it. */
uint64_t spin_whole_digest(struct cpu *c);

#endif
