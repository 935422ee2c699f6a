/* Delivery of exceptions, software interrupts and external interrupts through the IDT, and IRET. SDM vol. 3 ch. 6. */
#ifndef RACETAPE_INTERRUPT_H
#define RACETAPE_INTERRUPT_H

#include "op.h"

enum interrupt_source {
	SOURCE_EXCEPTION, /* a fault */
	SOURCE_TRAP,	  /* #DB after an instruction, INT1: no resume flag, no privilege asked of the gate */
	SOURCE_SOFTWARE,  /* INT n, INT3, INTO */
	SOURCE_EXTERNAL,
};

/* Pushes the frame and enters the handler; rip is the return address. STATUS_FAULT if delivery itself faults, with
 * nothing of the CPU's registers changed. */
enum status interrupt_deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error);
/* Delivers a trap that c->fault describes: what follows an instruction that has retired. */
void trap_deliver(struct cpu *c);
/* Delivers the exception in c->fault, #DF if that faults, and shuts the machine down if that faults too. False if a run that
 * asks (visible.h) has to stop before it: nothing is done but that cr2 may be set. */
bool exception_deliver(struct cpu *c);
/* Whether a non-maskable interrupt is pending and may be taken before the next instruction. */
bool nmi_open(const struct cpu *c);
/* Takes it: the next one waits until IRET. */
void nmi_accept(struct cpu *c);
/* Whether an external interrupt may be taken before the next instruction, APIC priorities aside. */
bool interrupts_open(const struct cpu *c);

#endif
