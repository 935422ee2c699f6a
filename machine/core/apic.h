/* The local APIC of each CPU. SDM vol. 3 chapter "Advanced Programmable Interrupt Controller"; docs/platform.md says
 * which registers exist. */
#ifndef RACETAPE_APIC_H
#define RACETAPE_APIC_H

#include "machine.h"

enum { APIC_ICR = 0x300 }; /* interrupt command register: who writes it sends an interrupt */

/* Device accesses at physical addresses; all ones, or nothing, where no APIC register answers. */
void apic_read(struct cpu *c, uint64_t phys, uint32_t size, uint64_t *ret);
void apic_write(struct cpu *c, uint64_t phys, uint32_t size, uint64_t value);
/* Whether this vector could be delivered now: pending as an IPI, or that of an armed timer; and accepted by the CPU. */
bool apic_can_deliver(const struct cpu *c, uint8_t vector);
/* Marks the vector as in service; what follows is its delivery. */
void apic_accept(struct cpu *c, uint8_t vector);
/* Whether any interrupt is pending, deliverable or not. */
bool apic_raised(const struct cpu *c);
/* Highest pending IPI that the CPU would accept now; -1 if none. */
int apic_pending(const struct cpu *c);
/* Vector of the timer if it is armed and not masked; -1 otherwise. */
int apic_timer_vector(const struct cpu *c);

#endif
