/* Delivery of exceptions, software interrupts and external interrupts through the IDT, and IRET. SDM vol. 3 ch. 6. */
#ifndef RACETAPE_INTERRUPT_H
#define RACETAPE_INTERRUPT_H

#include "op.h"

enum interrupt_source { SOURCE_EXCEPTION, SOURCE_SOFTWARE, SOURCE_EXTERNAL };

/* Pushes the frame and enters the handler; rip is the return address. STATUS_FAULT if delivery itself faults, with
 * nothing of the CPU's registers changed. */
enum status interrupt_deliver(struct cpu *c, uint8_t vector, enum interrupt_source source, bool has_error, uint32_t error);
/* Delivers the exception in c->fault, #DF if that faults, and shuts the machine down if that faults too. */
void exception_deliver(struct cpu *c);
/* Whether an external interrupt may be taken before the next instruction, APIC priorities aside. */
bool interrupts_open(const struct cpu *c);

#endif
