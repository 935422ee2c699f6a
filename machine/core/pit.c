#include "pit.h"

enum { LATCH = 0, LOW = 1, HIGH = 2, BOTH = 3 };

void pit_reset(struct pit *pit)
{
	*pit = (struct pit){0};
	for (uint32_t i = 0; i < PIT_CHANNELS; i++)
		pit->channel[i] = (struct pit_channel){.count = 65536, .access = BOTH, .gate = i != 2};
}

/* Modes 1 and 5 count from a rising edge of the gate, whatever its level is then. */
static bool starts_by_gate(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

static bool runs(const struct pit_channel *c)
{
	return c->counting && (starts_by_gate(c) ? c->triggered : c->gate);
}

/* Cycles counted. */
static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
	if (!c->counting || (starts_by_gate(c) && !c->triggered))
		return 0;
	return runs(c) ? now - c->start : c->start;
}

static bool channel_out(const struct pit_channel *c, uint64_t now)
{
	uint64_t done = elapsed(c, now);
	if (!c->counting)
		return c->mode != 0;
	switch (c->mode) {
	case 0: return done >= c->count;
	case 1: return !c->triggered || done >= c->count;
	case 2: return !c->gate || done % c->count != c->count - 1 || c->count == 1;
	case 3: return !c->gate || done % c->count < (c->count + 1) / 2;
	default: return done != c->count; /* strobes: down for one cycle */
	}
}

bool pit_out(const struct pit *pit, uint32_t channel, uint64_t now)
{
	return channel_out(&pit->channel[channel], now);
}

uint64_t pit_rise(const struct pit *pit, uint32_t channel, uint64_t after)
{
	const struct pit_channel *c = &pit->channel[channel];
	if (!runs(c))
		return UINT64_MAX;
	uint64_t once = c->start + c->count + (c->mode >= 4);
	if (c->mode != 2 && c->mode != 3)
		return once > after ? once : UINT64_MAX;
	uint64_t periods = after >= c->start ? (after - c->start) / c->count + 1 : 1;
	return c->start + periods * c->count;
}

/* What the counter holds. */
static uint16_t counter(const struct pit_channel *c, uint64_t now)
{
	uint64_t done = elapsed(c, now), value;
	uint32_t wrap = c->decimal ? 10000 : 65536;
	if (c->mode == 2)
		value = c->count - done % c->count;
	else if (c->mode == 3)
		value = c->count - done * 2 % c->count;
	else
		value = (c->count + wrap - done % wrap) % wrap;
	value %= wrap;
	if (c->decimal)
		value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
	return (uint16_t)value;
}

void pit_gate(struct pit *pit, uint32_t channel, bool open, uint64_t now)
{
	struct pit_channel *c = &pit->channel[channel];
	if (c->gate == open)
		return;
	uint64_t done = elapsed(c, now);
	c->gate = open;
	if (starts_by_gate(c)) {
		if (open) {
			c->triggered = 1;
			c->start = now;
		}
	} else if (!open) {
		c->start = done;
	} else {
		c->start = c->mode == 2 || c->mode == 3 ? now : now - c->start; /* these two begin anew */
	}
}

static void latch_count(struct pit_channel *c, uint64_t now)
{
	if (c->has_latched)
		return; /* until it is read (page 8) */
	c->latched = counter(c, now);
	c->has_latched = 1;
}

static void latch_status(struct pit_channel *c, uint64_t now)
{
	if (c->has_status)
		return;
	c->status = (uint8_t)(channel_out(c, now) << 7 | !c->counting << 6 | c->access << 4 | c->mode << 1 | c->decimal);
	c->has_status = 1;
}

static void control(struct pit *pit, uint8_t value, uint64_t now)
{
	uint32_t number = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;
	if (number == 3) { /* read-back */
		for (uint32_t i = 0; i < PIT_CHANNELS; i++) {
			if (!(value >> (i + 1) & 1))
				continue;
			if (!(value & 0x20))
				latch_count(&pit->channel[i], now);
			if (!(value & 0x10))
				latch_status(&pit->channel[i], now);
		}
		return;
	}
	struct pit_channel *c = &pit->channel[number];
	if (access == LATCH) {
		latch_count(c, now);
		return;
	}
	*c = (struct pit_channel){.count = 65536, .access = (uint8_t)access, .gate = c->gate,
				  .mode = (uint8_t)(mode >= 6 ? mode - 4 : mode), .decimal = value & 1};
}

static void load(struct pit_channel *c, uint32_t value, uint64_t now)
{
	if (c->decimal)
		value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
	c->count = value ? value : c->decimal ? 10000 : 65536;
	c->counting = 1;
	if (!starts_by_gate(c))
		c->start = c->gate ? now : 0;
	else if (!c->triggered)
		c->start = 0;
}

uint8_t pit_read(struct pit *pit, uint32_t number, uint64_t now)
{
	if (number == 3)
		return 0xff; /* the control word cannot be read */
	struct pit_channel *c = &pit->channel[number];
	if (c->has_status) {
		c->has_status = 0;
		return c->status;
	}
	uint16_t value = c->has_latched ? c->latched : counter(c, now);
	bool high = c->access == HIGH || (c->access == BOTH && c->read_high);
	if (c->access == BOTH)
		c->read_high = !c->read_high;
	if (c->access != BOTH || high) {
		c->has_latched = 0;
		c->latched = 0;
	}
	return (uint8_t)(high ? value >> 8 : value);
}

void pit_write(struct pit *pit, uint32_t number, uint8_t value, uint64_t now)
{
	if (number == 3) {
		control(pit, value, now);
		return;
	}
	struct pit_channel *c = &pit->channel[number];
	if (c->access != BOTH) {
		load(c, c->access == HIGH ? (uint32_t)value << 8 : value, now);
	} else if (c->write_high) {
		c->write_high = 0;
		load(c, (uint32_t)value << 8 | c->written, now);
		c->written = 0;
	} else {
		c->write_high = 1;
		c->written = value;
		if (c->mode == 0) { /* counting stops with the first byte (page 10) */
			c->counting = 0;
			c->start = 0;
		}
	}
}

void pit_move(struct pit *pit, uint64_t by)
{
	for (uint32_t i = 0; i < PIT_CHANNELS; i++)
		if (runs(&pit->channel[i]))
			pit->channel[i].start -= by;
}

bool pit_valid(const struct pit *pit)
{
	bool valid = true;
	for (uint32_t i = 0; i < PIT_CHANNELS; i++) {
		const struct pit_channel *c = &pit->channel[i];
		valid = valid && c->count >= 1 && c->count <= 65536 && c->mode <= 5 && c->access >= LOW && c->access <= BOTH && !(c->start >> 62) &&
			(c->counting | c->triggered | c->gate | c->decimal | c->write_high | c->read_high | c->has_latched | c->has_status) <= 1;
		for (uint32_t n = 0; n < sizeof(c->zero); n++)
			valid = valid && !c->zero[n];
	}
	return valid;
}
