/* The 8254 interval timer. Intel 8254 Programmable Interval Timer, order number 231164, 1993.
 *
 * All times are in cycles of its clock. Nothing counts: what a channel shows follows from when its count was written. Two
 * simplifications: a new count of modes 2 and 3 counts from when it is written, not from the end of the period; and a control word
 * makes no edge on OUT, a count does. */
#ifndef RACETAPE_PIT_H
#define RACETAPE_PIT_H

#include <stdbool.h>
#include <stdint.h>

enum { PIT_CHANNELS = 3 };

struct pit_channel {
	uint64_t start; /* when counting began; with the gate closed, how long it had counted */
	uint32_t count; /* 1 to 65536 */
	uint16_t latched;
	uint8_t mode;	   /* 0 to 5 */
	uint8_t access;	   /* 1 low byte, 2 high byte, 3 low, then high byte */
	uint8_t written;   /* low byte of a count whose high byte is yet to come */
	uint8_t status;	   /* latched */
	uint8_t counting;  /* a count was written since the control word; 0 or 1, and so are all that follow */
	uint8_t triggered; /* modes 1 and 5: the gate has opened since */
	uint8_t gate;
	uint8_t decimal;
	uint8_t write_high; /* the next byte written is the high one */
	uint8_t read_high;
	uint8_t has_latched;
	uint8_t has_status;
	uint8_t zero[4];
};

struct pit {
	struct pit_channel channel[PIT_CHANNELS];
};

void pit_reset(struct pit *pit);
/* Level of OUT. */
bool pit_out(const struct pit *pit, uint32_t channel, uint64_t now);
/* When OUT goes up next, later than `after`; UINT64_MAX if it does not. */
uint64_t pit_rise(const struct pit *pit, uint32_t channel, uint64_t after);
void pit_gate(struct pit *pit, uint32_t channel, bool open, uint64_t now);
/* Registers 0 to 3. */
uint8_t pit_read(struct pit *pit, uint32_t number, uint64_t now);
void pit_write(struct pit *pit, uint32_t number, uint8_t value, uint64_t now);
/* The same state, `by` cycles earlier. */
void pit_move(struct pit *pit, uint64_t by);
/* Whether bytes from a file are a state. */
bool pit_valid(const struct pit *pit);

#endif
