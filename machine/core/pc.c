#include "pc.h"

#include <stddef.h>

#include "device.h"
#include "interrupt.h"
#include "memory.h"
#include "visible.h"

enum { INPUT_TIMER = 0, INPUT_UART = 4 };
enum { SPEAKER_GATE = 1, SPEAKER_BITS = 3, REFRESH_CYCLES = 18, GATED_CHANNEL = 2 };

static_assert(sizeof(struct pit_channel) == 32 && sizeof(struct pic) == 16 && sizeof(struct uart) == 32 && sizeof(struct rtc) == 136 &&
	      sizeof(struct pc_state) == 16 + 96 + 32 + 32 + 8 + 136 + 8, "no padding: copied and hashed as bytes");

void pc_create(struct machine *m)
{
	struct pc_state *pc = &m->pc_state;
	m->pc = true;
	pit_reset(&pc->pit);
	rtc_reset(&pc->rtc);
	uart_reset(&pc->uart);
	for (uint32_t i = 0; i < 2; i++)
		pc->pics.chip[i].lowest = 7;
}

static uint64_t cycle(const struct machine *m)
{
	return (m->step + m->pc_state.skipped) / PC_STEPS_PER_CYCLE;
}

/* What the timer's output did until now reaches the interrupt controller. */
static void catch_up(struct machine *m)
{
	struct pc_state *pc = &m->pc_state;
	uint64_t now = cycle(m);
	if (pc->seen == now)
		return;
	if (pit_rise(&pc->pit, 0, pc->seen) <= now)
		pic_pulse(&pc->pics, INPUT_TIMER);
	pc->seen = now;
}

/* The same for those who may not change what they look at: copies of what interrupts depend on. */
static struct pics pics_now(const struct machine *m)
{
	const struct pc_state *pc = &m->pc_state;
	struct pics pics = pc->pics;
	if (pit_rise(&pc->pit, 0, pc->seen) <= cycle(m))
		pic_pulse(&pics, INPUT_TIMER);
	return pics;
}

void pc_canonicalise(struct machine *m)
{
	catch_up(m);
}

/* --- ports --- */

static uint8_t speaker_in(struct machine *m, uint32_t port)
{
	(void)port;
	const struct pc_state *pc = &m->pc_state;
	uint64_t now = cycle(m);
	bool refresh = now / REFRESH_CYCLES & 1;
	return (uint8_t)(pc->speaker | refresh << 4 | pit_out(&pc->pit, GATED_CHANNEL, now) << 5);
}

static bool speaker_out(struct machine *m, uint32_t port, uint8_t value)
{
	(void)port;
	m->pc_state.speaker = value & SPEAKER_BITS;
	pit_gate(&m->pc_state.pit, GATED_CHANNEL, value & SPEAKER_GATE, cycle(m));
	return false;
}

static uint8_t pic_in(struct machine *m, uint32_t port) { return pic_read(&m->pc_state.pics, port >> 7, port & 1); }
static bool pic_out(struct machine *m, uint32_t port, uint8_t value)
{
	pic_write(&m->pc_state.pics, port >> 7, port & 1, value);
	return false;
}

static uint8_t pit_in(struct machine *m, uint32_t port) { return pit_read(&m->pc_state.pit, port & 3, cycle(m)); }
static bool pit_port_out(struct machine *m, uint32_t port, uint8_t value)
{
	pit_write(&m->pc_state.pit, port & 3, value, cycle(m));
	return false;
}

static uint8_t keyboard_in(struct machine *m, uint32_t port) { return keyboard_read(&m->pc_state.keyboard, port >> 2 & 1); }
static bool keyboard_out(struct machine *m, uint32_t port, uint8_t value)
{
	bool resets = keyboard_resets(&m->pc_state.keyboard, port >> 2 & 1, value);
	keyboard_write(&m->pc_state.keyboard, port >> 2 & 1, value);
	return resets;
}

static uint8_t rtc_in(struct machine *m, uint32_t port) { return rtc_read(&m->pc_state.rtc, port & 1); }
static bool rtc_out(struct machine *m, uint32_t port, uint8_t value)
{
	rtc_write(&m->pc_state.rtc, port & 1, value);
	return false;
}

static void uart_line(struct machine *m)
{
	pic_line(&m->pc_state.pics, INPUT_UART, uart_interrupts(&m->pc_state.uart));
}

static uint8_t uart_in(struct machine *m, uint32_t port)
{
	uint8_t value = uart_read(&m->pc_state.uart, port & 7);
	uart_line(m);
	return value;
}

static bool uart_out(struct machine *m, uint32_t port, uint8_t value)
{
	int sent = uart_write(&m->pc_state.uart, port & 7, value);
	if (sent >= 0)
		console_put(&m->console, (char)sent);
	uart_line(m);
	return false;
}

struct pc_port {
	uint32_t first, end;
	bool timed; /* what is read depends on time */
	uint8_t (*in)(struct machine *m, uint32_t port);
	bool (*out)(struct machine *m, uint32_t port, uint8_t value); /* returns whether the PC is reset */
};

static const struct pc_port pc_ports[] = {
	{0x20, 0x22, true, pic_in, pic_out},
	{0x40, 0x44, true, pit_in, pit_port_out},
	{0x60, 0x61, false, keyboard_in, keyboard_out},
	{0x61, 0x62, true, speaker_in, speaker_out},
	{0x64, 0x65, false, keyboard_in, keyboard_out},
	{0x70, 0x72, false, rtc_in, rtc_out},
	{0xa0, 0xa2, true, pic_in, pic_out},
	{0x3f8, 0x400, false, uart_in, uart_out},
};

static const struct pc_port *find(uint32_t number)
{
	for (size_t i = 0; i < sizeof(pc_ports) / sizeof(pc_ports[0]); i++)
		if (number >= pc_ports[i].first && number < pc_ports[i].end)
			return &pc_ports[i];
	return NULL;
}

bool pc_has_port(uint32_t number, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		if (find(number + i))
			return true;
	return false;
}

/* Wider accesses are made a byte at a time, the lowest first, as the bus does for such devices. */
uint64_t pc_in(struct cpu *c, uint32_t number, uint32_t size)
{
	struct machine *m = c->machine;
	uint64_t value = 0;
	catch_up(m);
	for (uint32_t i = 0; i < size; i++) {
		const struct pc_port *port = find(number + i);
		if (port && port->timed)
			visible_clock(m);
		value |= (uint64_t)(port ? port->in(m, number + i) : 0xff) << 8 * i;
	}
	return value;
}

bool pc_out(struct cpu *c, uint32_t number, uint32_t size, uint64_t value)
{
	struct machine *m = c->machine;
	bool resets = false;
	catch_up(m);
	for (uint32_t i = 0; i < size; i++) {
		const struct pc_port *port = find(number + i);
		if (port && port->out(m, number + i, (uint8_t)(value >> 8 * i)))
			resets = true;
	}
	m->run_end = m->step; /* there may be an interrupt, or the next one may be due earlier: the caller looks */
	return resets;
}

bool pc_resets(const struct machine *m, uint32_t number, uint32_t size, uint64_t value)
{
	for (uint32_t i = 0; i < size; i++) {
		const struct pc_port *port = find(number + i);
		if (port && port->out == keyboard_out && keyboard_resets(&m->pc_state.keyboard, (number + i) >> 2 & 1, (uint8_t)(value >> 8 * i)))
			return true;
	}
	return false;
}

/* --- interrupts --- */

bool pc_raised(struct machine *m)
{
	catch_up(m);
	return pic_request(&m->pc_state.pics) >= 0;
}

int pc_pending(const struct cpu *c)
{
	if (!interrupts_open(c) || c->machine->s.ended)
		return -1;
	struct pics pics = pics_now(c->machine);
	int input = pic_request(&pics);
	return input < 0 ? -1 : pic_vector(&pics, (uint32_t)input);
}

int pc_timer_vector(const struct cpu *c)
{
	const struct machine *m = c->machine;
	struct pics pics = pics_now(m);
	if (pics.chip[0].requests & 1 << INPUT_TIMER || pit_rise(&m->pc_state.pit, 0, cycle(m)) == UINT64_MAX)
		return -1;
	return pic_would_take(&pics, INPUT_TIMER) ? pic_vector(&pics, INPUT_TIMER) : -1;
}

void pc_accept(struct cpu *c, uint8_t vector)
{
	struct machine *m = c->machine;
	struct pc_state *pc = &m->pc_state;
	if (pc_pending(c) != vector) /* then the timer's, and not due yet */
		pc->skipped = pit_rise(&pc->pit, 0, cycle(m)) * PC_STEPS_PER_CYCLE - m->step;
	catch_up(m);
	pic_acknowledge(&pc->pics);
	if (c->s.waiting == WAIT_HALT)
		c->s.waiting = WAIT_NONE;
}

uint64_t pc_due(struct machine *m)
{
	const struct pc_state *pc = &m->pc_state;
	catch_up(m);
	/* One that is requested already, or masked, changes nothing. */
	if ((pc->pics.chip[0].requests | pc->pics.chip[0].mask) & 1 << INPUT_TIMER)
		return UINT64_MAX;
	uint64_t rise = pit_rise(&pc->pit, 0, pc->seen);
	return rise == UINT64_MAX ? rise : rise * PC_STEPS_PER_CYCLE - pc->skipped;
}

/* --- state --- */

uint64_t pc_hash(uint64_t seed, struct machine *m)
{
	catch_up(m);
	struct pc_state state = m->pc_state;
	uint64_t time = m->step + state.skipped;
	pit_move(&state.pit, state.seen);
	state.seen = 0;
	state.skipped = time % PC_STEPS_PER_CYCLE;
	return hash_bytes(seed, &state, sizeof(state));
}

bool pc_valid(const struct pc_state *state, uint64_t step)
{
	bool valid = !(state->skipped >> 62) && state->seen <= (step + state->skipped) / PC_STEPS_PER_CYCLE && pit_valid(&state->pit) &&
		     pic_valid(&state->pics) && uart_valid(&state->uart) && state->rtc.index < RTC_SIZE && state->keyboard.full <= 1 &&
		     state->speaker <= SPEAKER_BITS;
	for (uint32_t i = 0; i < sizeof(state->zero); i++)
		valid = valid && !state->zero[i] && !state->rtc.zero[i];
	return valid;
}
