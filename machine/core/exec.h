/* Executing one instruction: what handlers and the run loop share. */
#ifndef RACETAPE_EXEC_H
#define RACETAPE_EXEC_H

#include "op.h"

/* Raises #UD; the first bytes of the instruction go into the report. */
enum status exec_undefined(struct cpu *c, const struct op *op);

/* Raises #GP: more than 15 bytes. */
enum status exec_too_long(struct cpu *c, const struct op *op);

/* A locked instruction: op->inner within one step, with nothing buffered. */
enum status exec_locked(struct cpu *c, const struct op *op);

/* One table entry per operation, defined by HANDLERS in exec_*.c. */
#define HANDLER(name) extern const struct handlers name##_handlers;
#include "handlers.def"
#undef HANDLER

#endif
