/* The keyboard controller, as far as software without a keyboard goes: self-test, command byte, output port, and the line that
 * resets the PC. Intel 8042 as in IBM Personal Computer AT Technical Reference, 1984, section 1, "Keyboard controller". */
#ifndef RACETAPE_KEYBOARD_H
#define RACETAPE_KEYBOARD_H

#include <stdbool.h>
#include <stdint.h>

struct keyboard {
	uint8_t command;  /* byte */
	uint8_t expected; /* the command whose byte comes next at the data port; 0: none */
	uint8_t output;	  /* to the system */
	uint8_t full;	  /* 0 or 1: `output` has not been read */
	uint8_t zero[4];
};

/* Port 0 is data (60h), 1 command and status (64h). */
uint8_t keyboard_read(struct keyboard *keyboard, uint32_t port);
void keyboard_write(struct keyboard *keyboard, uint32_t port, uint8_t value);
/* Whether writing this would reset the PC. */
bool keyboard_resets(const struct keyboard *keyboard, uint32_t port, uint8_t value);

#endif
