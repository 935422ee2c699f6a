/* Registers by name, for inspection and set-up from outside. */
#ifndef RACETAPE_REGISTERS_H
#define RACETAPE_REGISTERS_H

#include "machine.h"

struct register_row {
	const char *name;
	uint64_t (*get)(const struct cpu *c, uint32_t which);
	void (*set)(struct cpu *c, uint32_t which, uint64_t value); /* NULL: read only */
	uint32_t which;
};

extern const struct register_row register_table[];
extern const uint32_t register_count;

/* NULL if there is no such register. */
const struct register_row *register_find(const char *name);
uint64_t register_get(const struct cpu *c, const struct register_row *row);
/* False if the register cannot be set. Drops everything derived from the CPU's state. */
bool register_set(struct cpu *c, const struct register_row *row, uint64_t value);

/* Puts the CPU into flat code of 16, 32 or 64 bits; false for other sizes. 64 turns on paging and long mode. */
bool register_set_bits(struct cpu *c, uint32_t bits);

#endif
