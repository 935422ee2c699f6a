/* Whether a CPU goes in circles: what is compared for it. */
#ifndef RACETAPE_SPIN_H
#define RACETAPE_SPIN_H

#include "machine.h"

/* Registers, and what is on top of the stack: code that comes by for another reason has other locals or callers. Cheap. */
uint64_t spin_digest(struct cpu *c);
/* All of memory, all of the CPU's state, what its buffer holds, and when the time was last read: if it comes again without anybody else's
 * doing, then for ever. */
uint64_t spin_whole_digest(struct cpu *c);

#endif
