/* Single step, breakpoints and alignment checks. SDM vol. 3 chapter "Debug, Branch Profile, TSC", and 6.15 (#AC).
 *
 * A CPU with any of them in use is `careful`: it executes one instruction at a time and every access goes the slow way.
 */
#ifndef RACETAPE_DEBUG_H
#define RACETAPE_DEBUG_H

#include "machine.h"

/* Whether this CPU has to be careful. */
bool debug_in_use(const struct cpu *c);
/* #AC, described in c->fault, for an explicit access of a program at privilege 3. */
bool debug_misaligned(struct cpu *c, uint64_t addr, uint32_t size);
/* Notes the data breakpoints that this access hits. */
void debug_watch(struct cpu *c, uint64_t addr, uint32_t size, bool write);
/* The same for an access to ports (CR4.DE). */
void debug_watch_port(struct cpu *c, uint32_t port, uint32_t size);
/* Whether an instruction breakpoint is set on the next instruction: #DB, described in c->fault. */
bool debug_breakpoint(struct cpu *c);
/* After an instruction: whether a trap is due, described in c->fault. */
bool debug_trap(struct cpu *c, bool single_step);

#endif
