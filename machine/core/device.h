/* Port devices: console, exit, choice. A table of ports, so that a PC platform is further rows. */
#ifndef RACETAPE_DEVICE_H
#define RACETAPE_DEVICE_H

#include "op.h"

enum { TRACE_MAGIC = 0x5254 }; /* upper half of a tracepoint's displacement */

/* Whether the running program may use these ports; #GP if not. */
enum status port_check(struct cpu *c, uint32_t port, uint32_t size);
/* Whether writing this port ends the run, for every CPU. */
bool port_ends_run(uint32_t port, uint32_t size);
uint64_t port_in(struct cpu *c, uint32_t port, uint32_t size);
/* STATUS_OK, or STATUS_STOP if the CPU or the machine cannot go on after it. */
enum status port_out(struct cpu *c, uint32_t port, uint32_t size, uint64_t value);
void console_deinit(struct console *console);

#endif
