/* The PC around a single CPU: which devices there are, at which ports and interrupt lines, and how late it is. An option of a
 * machine; docs/platform.md, "A PC".
 *
 * Time is the number of the step, and whatever was skipped: a timer interrupt that the schedule places before it is due makes time jump
 * to where it is. That is what happens when the CPU waits, for waiting takes no steps; and a strategy may do so anywhere. */
#ifndef RACETAPE_PC_H
#define RACETAPE_PC_H

#include <stdbool.h>
#include <stdint.h>

#include "keyboard.h"
#include "pic.h"
#include "pit.h"
#include "rtc.h"
#include "uart.h"

struct cpu;
struct machine;

/* Steps in a cycle of the timer's clock of 1,193,182 Hz: 119.3182 million steps make a second. */
enum { PC_STEPS_PER_CYCLE = 100 };

struct pc_state {
	uint64_t skipped; /* time is this much ahead of the step */
	uint64_t seen;	  /* cycle up to which the timer's edges have reached the interrupt controller */
	struct pit pit;
	struct pics pics;
	struct uart uart;
	struct keyboard keyboard;
	struct rtc rtc;
	uint8_t speaker; /* port 61h: bits 0 and 1 */
	uint8_t zero[7];
};

/* The machine, which has not run yet, becomes a PC. */
void pc_create(struct machine *m);
/* Whether one of `size` ports from `number` on is a device's of the PC. */
bool pc_has_port(uint32_t number, uint32_t size);
uint64_t pc_in(struct cpu *c, uint32_t number, uint32_t size);
/* Returns whether the PC was reset, which ends the run. */
bool pc_out(struct cpu *c, uint32_t number, uint32_t size, uint64_t value);
bool pc_resets(const struct machine *m, uint32_t number, uint32_t size, uint64_t value);

/* Whether a device interrupts the CPU, which may have interrupts off. */
bool pc_raised(struct machine *m);
/* Vector of the interrupt that the CPU would take now; -1 if there is none, or it does not. */
int pc_pending(const struct cpu *c);
/* Vector of the timer's interrupt if it is still to come, but would be taken if it came now; -1 otherwise. */
int pc_timer_vector(const struct cpu *c);
/* The CPU takes the interrupt of this vector, which is one of the two above. */
void pc_accept(struct cpu *c, uint8_t vector);
/* Step at which the timer's next interrupt is due, later than now; UINT64_MAX if none is, or it is masked or requested already. */
uint64_t pc_due(struct machine *m);

/* Brings the state to what it is at this step, whoever looked at it before and when. */
void pc_canonicalise(struct machine *m);
/* Of the state; equal states have equal hashes whenever they are reached. */
uint64_t pc_hash(uint64_t seed, struct machine *m);
/* Whether bytes from a file are a state. */
bool pc_valid(const struct pc_state *state, uint64_t step);

#endif
