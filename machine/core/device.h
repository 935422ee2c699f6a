/* Port devices: console, exit, choice; and those of a PC (pc.h). */
#ifndef RACETAPE_DEVICE_H
#define RACETAPE_DEVICE_H

#include "op.h"

enum { TRACE_MAGIC = 0x5254 }; /* upper half of a tracepoint's displacement */

/* Whether the running program may use these ports; #GP if not. */
enum status port_check(struct cpu *c, uint32_t port, uint32_t size);
/* Whether writing this to the port ends the run, for every CPU. */
bool port_ends_run(const struct cpu *c, uint32_t port, uint32_t size, uint64_t value);
uint64_t port_in(struct cpu *c, uint32_t port, uint32_t size);
/* STATUS_OK, or STATUS_STOP if the CPU or the machine cannot go on after it. */
enum status port_out(struct cpu *c, uint32_t port, uint32_t size, uint64_t value);
/* The console is output only and no part of the machine's state. What does not fit is dropped. */
void console_put(struct console *console, char character);
void console_deinit(struct console *console);

#endif
