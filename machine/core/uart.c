#include "uart.h"

#include <string.h>

enum uart_register { DATA, ENABLE, IDENTIFY, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH };
enum { ENABLE_RECEIVED = 1, ENABLE_SENT = 2, ENABLE_LINE = 4, ENABLE_MODEM = 8 };
enum { LINE_DIVISOR = 0x80 };
enum { MODEM_OUT2 = 8, MODEM_LOOP = 16 };
enum { STATUS_READY = 1, STATUS_OVERRUN = 2, STATUS_EMPTY = 0x60 };
enum { FIFO_ON = 1 };
enum { CAUSE_NONE = 1, CAUSE_MODEM = 0, CAUSE_SENT = 2, CAUSE_RECEIVED = 4, CAUSE_LINE = 6, CAUSE_TIMED_OUT = 12 };

void uart_reset(struct uart *uart)
{
	*uart = (struct uart){.divisor_low = 1};
}

static uint32_t room(const struct uart *u)
{
	return u->fifo & FIFO_ON ? UART_FIFO : 1;
}

static uint32_t trigger(const struct uart *u)
{
	static const uint8_t levels[] = {1, 4, 8, 14};
	return u->fifo & FIFO_ON ? levels[u->fifo >> 6] : 1;
}

/* The cause of the highest priority (table III). */
static uint8_t cause(const struct uart *u)
{
	if (u->enabled & ENABLE_LINE && u->errors)
		return CAUSE_LINE;
	if (u->enabled & ENABLE_RECEIVED && u->received_count)
		return u->received_count >= trigger(u) ? CAUSE_RECEIVED : CAUSE_TIMED_OUT;
	if (u->enabled & ENABLE_SENT && u->sent)
		return CAUSE_SENT;
	if (u->enabled & ENABLE_MODEM && u->changes)
		return CAUSE_MODEM;
	return CAUSE_NONE;
}

bool uart_interrupts(const struct uart *uart)
{
	/* On a PC, OUT2 connects the line; in loopback it is disconnected. */
	bool connected = (uart->modem & (MODEM_OUT2 | MODEM_LOOP)) == MODEM_OUT2;
	return connected && cause(uart) != CAUSE_NONE;
}

bool uart_receive(struct uart *uart, uint8_t value)
{
	if (uart->received_count >= room(uart)) {
		uart->errors |= STATUS_OVERRUN;
		return false;
	}
	uart->received[uart->received_count++] = value;
	return true;
}

static uint8_t take(struct uart *u)
{
	uint8_t value = u->received[0];
	if (u->received_count) {
		memmove(u->received, u->received + 1, UART_FIFO - 1);
		u->received[UART_FIFO - 1] = 0;
		u->received_count--;
	}
	return value;
}

/* Upper half of MSR: in loopback the outputs DTR, RTS, OUT1, OUT2 come in as DSR, CTS, RI, DCD. */
static uint8_t modem_lines(const struct uart *u)
{
	if (!(u->modem & MODEM_LOOP))
		return 0xb0;
	return (uint8_t)((u->modem & 1) << 5 | (u->modem & 2) << 3 | (u->modem & 4) << 4 | (u->modem & 8) << 4);
}

static void set_modem(struct uart *u, uint8_t value)
{
	uint8_t before = modem_lines(u);
	u->modem = value & 0x1f;
	uint8_t now = modem_lines(u), changed = before ^ now;
	/* RI tells only that it went down. */
	u->changes |= (uint8_t)((changed >> 4 & 0x0b) | (before & (uint8_t)~now & 0x40) >> 4);
}

static void set_fifo(struct uart *u, uint8_t value)
{
	if ((value ^ u->fifo) & FIFO_ON || value & 2) {
		memset(u->received, 0, sizeof(u->received));
		u->received_count = 0;
	}
	u->fifo = value & FIFO_ON ? value & 0xc9 : 0;
}

uint8_t uart_read(struct uart *uart, uint32_t number)
{
	bool divisor = uart->line & LINE_DIVISOR;
	uint8_t value;
	switch ((enum uart_register)number) {
	case DATA: return divisor ? uart->divisor_low : take(uart);
	case ENABLE: return divisor ? uart->divisor_high : uart->enabled;
	case IDENTIFY:
		value = cause(uart);
		if (value == CAUSE_SENT)
			uart->sent = 0;
		return value | (uart->fifo & FIFO_ON ? 0xc0 : 0);
	case LINE_CONTROL: return uart->line;
	case MODEM_CONTROL: return uart->modem;
	case LINE_STATUS:
		value = (uint8_t)(STATUS_EMPTY | uart->errors | (uart->received_count ? STATUS_READY : 0));
		uart->errors = 0;
		return value;
	case MODEM_STATUS:
		value = modem_lines(uart) | uart->changes;
		uart->changes = 0;
		return value;
	case SCRATCH: return uart->scratch;
	}
	return 0xff;
}

int uart_write(struct uart *uart, uint32_t number, uint8_t value)
{
	bool divisor = uart->line & LINE_DIVISOR;
	switch ((enum uart_register)number) {
	case DATA:
		if (divisor) {
			uart->divisor_low = value;
			return -1;
		}
		uart->sent = 1;
		if (!(uart->modem & MODEM_LOOP))
			return value;
		uart_receive(uart, value);
		return -1;
	case ENABLE:
		if (divisor) {
			uart->divisor_high = value;
			return -1;
		}
		if (value & (uint8_t)~uart->enabled & ENABLE_SENT)
			uart->sent = 1; /* the transmitter is empty */
		uart->enabled = value & 0x0f;
		return -1;
	case IDENTIFY: set_fifo(uart, value); return -1;
	case LINE_CONTROL: uart->line = value; return -1;
	case MODEM_CONTROL: set_modem(uart, value); return -1;
	case SCRATCH: uart->scratch = value; return -1;
	case LINE_STATUS:
	case MODEM_STATUS: return -1;
	}
	return -1;
}

bool uart_valid(const struct uart *uart)
{
	bool valid = uart->received_count <= UART_FIFO && uart->sent <= 1 && !uart->zero;
	for (uint32_t i = 0; valid && i < UART_FIFO; i++)
		valid = i < uart->received_count || !uart->received[i];
	for (uint32_t i = 0; i < sizeof(uart->padding); i++)
		valid = valid && !uart->padding[i];
	return valid;
}
