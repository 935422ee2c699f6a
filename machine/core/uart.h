/* A serial interface. National Semiconductor PC16550D, 1995.
 *
 * What is sent is sent at once; what is received comes a byte at a time, and a byte that has come but does not fill the FIFO to its
 * trigger level is reported as timed out. Modem lines: CTS, DSR and DCD are there, and never change but in loopback. */
#ifndef RACETAPE_UART_H
#define RACETAPE_UART_H

#include <stdbool.h>
#include <stdint.h>

enum { UART_FIFO = 16 };

struct uart {
	uint8_t enabled;     /* IER */
	uint8_t fifo;	     /* FCR, but for its reset bits */
	uint8_t line;	     /* LCR */
	uint8_t modem;	     /* MCR */
	uint8_t scratch;     /* SCR */
	uint8_t errors;	     /* LSR: overrun */
	uint8_t changes;     /* MSR: what has changed since it was read */
	uint8_t sent;	     /* 0 or 1: the interrupt of an empty transmitter is pending */
	uint8_t divisor_low, divisor_high;
	uint8_t received_count;
	uint8_t zero;
	uint8_t received[UART_FIFO]; /* the oldest first; 0 from received_count on */
	uint8_t padding[4];
};

void uart_reset(struct uart *uart);
/* Level of the interrupt line. */
bool uart_interrupts(const struct uart *uart);
/* A byte comes in. False, and it is lost, if there is no room. */
bool uart_receive(struct uart *uart, uint8_t value);
uint8_t uart_read(struct uart *uart, uint32_t number);
/* Returns the byte that is sent, or -1. */
int uart_write(struct uart *uart, uint32_t number, uint8_t value);
/* Whether bytes from a file are a state. */
bool uart_valid(const struct uart *uart);

#endif
