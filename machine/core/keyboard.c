#include "keyboard.h"

enum { READ_COMMAND = 0x20, WRITE_COMMAND = 0x60, SELF_TEST = 0xaa, INTERFACE_TEST = 0xab, READ_OUTPUT = 0xd0, WRITE_OUTPUT = 0xd1, PULSE = 0xf0 };
enum { LINE_RESET = 1 }; /* bit 0 of the output port; 0 resets */
enum { OUTPUT_PORT = 0xcf, STATUS_FULL = 1, STATUS_UNLOCKED = 0x10 };

uint8_t keyboard_read(struct keyboard *keyboard, uint32_t port)
{
	if (port)
		return (uint8_t)(STATUS_UNLOCKED | (keyboard->full ? STATUS_FULL : 0));
	keyboard->full = 0;
	return keyboard->output;
}

bool keyboard_resets(const struct keyboard *keyboard, uint32_t port, uint8_t value)
{
	bool pulse = port && value >= PULSE && !(value & LINE_RESET);
	return pulse || (!port && keyboard->expected == WRITE_OUTPUT && !(value & LINE_RESET));
}

static void answer(struct keyboard *k, uint8_t value)
{
	k->output = value;
	k->full = 1;
}

void keyboard_write(struct keyboard *keyboard, uint32_t port, uint8_t value)
{
	if (!port) {
		if (keyboard->expected == WRITE_COMMAND)
			keyboard->command = value;
		keyboard->expected = 0;
		return;
	}
	keyboard->expected = value == WRITE_COMMAND || value == WRITE_OUTPUT ? value : 0;
	switch (value) {
	case READ_COMMAND: answer(keyboard, keyboard->command); break;
	case SELF_TEST: answer(keyboard, 0x55); break;
	case INTERFACE_TEST: answer(keyboard, 0); break;
	case READ_OUTPUT: answer(keyboard, OUTPUT_PORT); break;
	default: break;
	}
}
