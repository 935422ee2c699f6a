#include "device.h"

#include <stdlib.h>

#include "debug.h"
#include "flags.h"
#include "tap.h"

enum { CONSOLE_SIZE_MAX = 16 << 20 };

void console_deinit(struct console *console)
{
	free(console->text);
	*console = (struct console){0};
}

void console_put(struct console *console, char character)
{
	if (console->count == console->allocated) {
		size_t allocated = console->allocated ? console->allocated * 2 : 4096;
		char *text = allocated <= CONSOLE_SIZE_MAX ? realloc(console->text, allocated) : NULL;
		if (!text)
			return;
		console->text = text;
		console->allocated = allocated;
	}
	console->text[console->count++] = character;
}

static enum status console_out(struct cpu *c, uint64_t value)
{
	console_put(&c->machine->console, (char)value);
	return STATUS_OK;
}

static enum status exit_out(struct cpu *c, uint64_t value)
{
	struct machine *m = c->machine;
	tap_event(c, EVENT_exit, 0, 0, value, 0, 0);
	m->s.ended = 1;
	m->s.exit_status = value;
	return STATUS_STOP;
}

static enum status choice_out(struct cpu *c, uint64_t value)
{
	if (!value)
		return STATUS_OK; /* a choice among nothing: no question was asked */
	c->s.choice_count = (uint32_t)value;
	c->s.waiting = WAIT_CHOICE;
	return STATUS_STOP;
}

static uint64_t choice_in(struct cpu *c)
{
	return c->s.choice_answer;
}

struct port {
	uint32_t number;
	uint32_t size;
	uint64_t (*in)(struct cpu *c);
	enum status (*out)(struct cpu *c, uint64_t value);
};

static const struct port ports[] = {
	{0x00e9, 1, NULL, console_out},
	{0x00f4, 4, NULL, exit_out},
	{0x0510, 4, choice_in, choice_out},
};

static const struct port *port_find(uint32_t number, uint32_t size)
{
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
		if (ports[i].number == number && ports[i].size == size)
			return &ports[i];
	return NULL;
}

/* Whether a device of the PC has it, if the machine is one. */
static bool is_pc_port(const struct cpu *c, const struct port *port, uint32_t number, uint32_t size)
{
	return c->machine->pc && !port && pc_has_port(number, size);
}

bool port_ends_run(const struct cpu *c, uint32_t number, uint32_t size, uint64_t value)
{
	const struct port *port = port_find(number, size);
	if (is_pc_port(c, port, number, size))
		return pc_resets(c->machine, number, size, value);
	return port && port->out == exit_out;
}

uint64_t port_in(struct cpu *c, uint32_t number, uint32_t size)
{
	const struct port *port = port_find(number, size);
	if (unlikely(c->careful))
		debug_watch_port(c, number, size);
	uint64_t value = size_mask(size); /* nobody answers: all ones */
	if (is_pc_port(c, port, number, size))
		value = pc_in(c, number, size);
	else if (port && port->in)
		value = port->in(c);
	tap_event(c, EVENT_port_in, number, 0, value, size, 0);
	return value;
}

enum status port_out(struct cpu *c, uint32_t number, uint32_t size, uint64_t value)
{
	const struct port *port = port_find(number, size);
	if (unlikely(c->careful))
		debug_watch_port(c, number, size);
	tap_event(c, EVENT_port_out, number, 0, value, size, 0);
	if (is_pc_port(c, port, number, size)) /* a PC that is reset has ended cleanly */
		return pc_out(c, number, size, value) ? exit_out(c, 0) : STATUS_OK;
	return port && port->out ? port->out(c, value) : STATUS_OK;
}
