#include "pic.h"

/* The input of one controller whose turn it is, -1 if none: the highest request that is not masked and above whatever is served. */
static int chip_request(const struct pic *p)
{
	for (uint32_t i = 1; i <= 8; i++) {
		uint32_t input = (p->lowest + i) & 7;
		uint8_t bit = (uint8_t)(1u << input);
		bool nested = p->fully_nested && input == PIC_CASCADE;
		if (p->requests & ~p->mask & bit && (!(p->serving & bit) || nested))
			return (int)input;
		/* In special mask mode an interrupt in service keeps back only itself. */
		if (p->serving & bit && !p->special_mask)
			return -1;
	}
	return -1;
}

static void chip_line(struct pic *p, uint32_t input, bool level)
{
	uint8_t bit = (uint8_t)(1u << input);
	if (!level)
		p->requests &= (uint8_t)~bit;
	else if (p->level_triggered || !(p->level & bit))
		p->requests |= bit;
	p->level = (uint8_t)(level ? p->level | bit : p->level & ~bit);
}

static void cascade(struct pics *pics)
{
	chip_line(&pics->chip[0], PIC_CASCADE, chip_request(&pics->chip[1]) >= 0);
}

void pic_line(struct pics *pics, uint32_t input, bool level)
{
	chip_line(&pics->chip[input >> 3], input & 7, level);
	cascade(pics);
}

void pic_pulse(struct pics *pics, uint32_t input)
{
	pics->chip[input >> 3].requests |= (uint8_t)(1u << (input & 7));
	cascade(pics);
}

int pic_request(const struct pics *pics)
{
	int input = chip_request(&pics->chip[0]);
	if (input != PIC_CASCADE)
		return input;
	int behind = chip_request(&pics->chip[1]);
	return behind < 0 ? -1 : 8 + behind;
}

uint8_t pic_vector(const struct pics *pics, uint32_t input)
{
	return (uint8_t)(pics->chip[input >> 3].base + (input & 7));
}

static void chip_acknowledge(struct pic *p, uint32_t input)
{
	uint8_t bit = (uint8_t)(1u << input);
	if (!p->level_triggered)
		p->requests &= (uint8_t)~bit;
	if (!p->auto_end)
		p->serving |= bit;
	else if (p->auto_rotate)
		p->lowest = (uint8_t)input;
}

void pic_acknowledge(struct pics *pics)
{
	int input = pic_request(pics);
	if (input < 0)
		return;
	if (input >= 8) {
		chip_acknowledge(&pics->chip[1], (uint32_t)input & 7);
		chip_line(&pics->chip[0], PIC_CASCADE, true);
		chip_acknowledge(&pics->chip[0], PIC_CASCADE);
		chip_line(&pics->chip[0], PIC_CASCADE, false); /* the second one's output goes down before it asks again */
	} else {
		chip_acknowledge(&pics->chip[0], (uint32_t)input);
	}
	cascade(pics);
}

bool pic_would_take(const struct pics *pics, uint32_t input)
{
	struct pics then = *pics;
	pic_pulse(&then, input);
	return pic_request(&then) == (int)input;
}

/* Of the highest priority among those served, -1 if there is none. */
static int chip_serving(const struct pic *p)
{
	/* In special mask mode what is masked is not found (page 16). */
	uint8_t candidates = p->special_mask ? p->serving & (uint8_t)~p->mask : p->serving;
	for (uint32_t i = 1; i <= 8; i++)
		if (candidates >> ((p->lowest + i) & 7) & 1)
			return (int)((p->lowest + i) & 7);
	return -1;
}

/* Operation command word 2: end of interrupt, and priorities. */
static void command_end(struct pic *p, uint8_t value)
{
	bool rotate = value & 0x80, specific = value & 0x40, end = value & 0x20;
	int input = specific ? value & 7 : chip_serving(p);
	if (!end && !specific) {
		p->auto_rotate = rotate;
		return;
	}
	if (end && input >= 0)
		p->serving &= (uint8_t)~(1u << input);
	if (rotate && input >= 0)
		p->lowest = (uint8_t)input;
}

/* Operation command word 3: what is read, polling, special mask mode. */
static void command_mode(struct pic *p, uint8_t value)
{
	if (value & 0x40)
		p->special_mask = value >> 5 & 1;
	if (value & 0x04)
		p->polls = 1;
	else if (value & 0x02)
		p->reads_serving = value & 1;
}

static void initialise(struct pic *p, uint8_t value)
{
	*p = (struct pic){.level = p->level, .lowest = 7, .expected = 2, .has_word4 = value & 1, .single = value >> 1 & 1,
			  .level_triggered = value >> 3 & 1};
	if (p->level_triggered)
		p->requests = p->level;
}

static void initialise_more(struct pic *p, uint8_t value)
{
	switch (p->expected) {
	case 2:
		p->base = value & 0xf8;
		p->expected = !p->single ? 3 : p->has_word4 ? 4 : 0;
		break;
	case 3: /* who is behind whom: wired */
		p->expected = p->has_word4 ? 4 : 0;
		break;
	default:
		p->auto_end = value >> 1 & 1;
		p->fully_nested = value >> 4 & 1;
		p->expected = 0;
		break;
	}
}

uint8_t pic_read(struct pics *pics, uint32_t chip, uint32_t port)
{
	struct pic *p = &pics->chip[chip];
	if (p->polls) {
		p->polls = 0;
		int input = chip_request(p);
		if (input < 0)
			return 0;
		chip_acknowledge(p, (uint32_t)input);
		if (chip)
			chip_line(&pics->chip[0], PIC_CASCADE, false);
		cascade(pics);
		return (uint8_t)(0x80 | input);
	}
	return port ? p->mask : p->reads_serving ? p->serving : p->requests;
}

void pic_write(struct pics *pics, uint32_t chip, uint32_t port, uint8_t value)
{
	struct pic *p = &pics->chip[chip];
	if (!port && value & 0x10)
		initialise(p, value);
	else if (!port && value & 0x08)
		command_mode(p, value);
	else if (!port)
		command_end(p, value);
	else if (p->expected)
		initialise_more(p, value);
	else
		p->mask = value;
	cascade(pics);
}

bool pic_valid(const struct pics *pics)
{
	bool valid = true;
	for (uint32_t i = 0; i < 2; i++) {
		const struct pic *p = &pics->chip[i];
		valid = valid && p->lowest <= 7 && (p->base & 7) == 0 && p->expected <= 4 && p->expected != 1 &&
			(p->has_word4 | p->single | p->level_triggered | p->auto_end | p->auto_rotate | p->fully_nested |
			 p->special_mask | p->reads_serving | p->polls) <= 1;
	}
	return valid;
}
