/* Two 8259A interrupt controllers, the second behind input 2 of the first, as a PC has them. Intel 8259A Programmable Interrupt
 * Controller, order number 231468, 1988.
 *
 * All of it but: the 8080 mode, the buffered mode, and special fully nested mode in the second. Nobody takes an interrupt while
 * its request goes away, so there is no default interrupt 7. */
#ifndef RACETAPE_PIC_H
#define RACETAPE_PIC_H

#include <stdbool.h>
#include <stdint.h>

enum { PIC_CASCADE = 2, PIC_INPUTS = 16 };

struct pic {
	uint8_t requests;  /* IRR */
	uint8_t serving;   /* ISR */
	uint8_t mask;	   /* IMR */
	uint8_t level;	   /* the inputs */
	uint8_t base;	   /* vector of input 0 */
	uint8_t lowest;	   /* input of the lowest priority */
	uint8_t expected;  /* which initialisation word comes next: 2, 3 or 4; 0: none */
	uint8_t has_word4; /* 0 or 1, and so are all that follow */
	uint8_t single;
	uint8_t level_triggered;
	uint8_t auto_end;
	uint8_t auto_rotate;
	uint8_t fully_nested; /* special fully nested mode: a second controller may interrupt itself */
	uint8_t special_mask;
	uint8_t reads_serving;
	uint8_t polls;
};

struct pics {
	struct pic chip[2];
};

/* An input (0 to 15) goes up or down. */
void pic_line(struct pics *pics, uint32_t input, bool level);
/* An input goes down and up: a request that stays though the input goes down again. */
void pic_pulse(struct pics *pics, uint32_t input);
/* The input whose turn it is, -1 if the CPU is not interrupted. */
int pic_request(const struct pics *pics);
/* Vector of an input. */
uint8_t pic_vector(const struct pics *pics, uint32_t input);
/* The CPU acknowledges: what pic_request says is served now. */
void pic_acknowledge(struct pics *pics);
/* Whether this input's request would be taken next if it came now. */
bool pic_would_take(const struct pics *pics, uint32_t input);
/* Registers: controller 0 or 1, port 0 or 1 of it. */
uint8_t pic_read(struct pics *pics, uint32_t chip, uint32_t port);
void pic_write(struct pics *pics, uint32_t chip, uint32_t port, uint8_t value);
/* Whether bytes from a file are a state. */
bool pic_valid(const struct pics *pics);

#endif
