/* The ledger: what the guest's ghosts add up to (docs/platform.md). At the tracepoint that announces a page's true change, `delta` is
 * added to the sum of the region that the page lies in and of the item it is about. Sums are no architectural state: they are
 * not hashed, but snapshots keep them. */
#ifndef RACETAPE_LEDGER_H
#define RACETAPE_LEDGER_H

#include "machine.h"

/* From now on; sums begin at 0. False if memory is short: then there is none. No `trace`: there is none. */
bool ledger_set(struct machine *m, const struct ledger *ledger);
void ledger_deinit(struct machine *m);
/* Tracepoint `op` announces: base a page, index the item in bits 31..24 and a signed delta below. */
void ledger_trace(struct machine *m, const struct cpu *c, const struct op *op);

/* What snapshots keep: NULL if there is no ledger, or memory is short (*failed). Freed with free(). */
struct ledger_sums *ledger_save(const struct machine *m, bool *failed);
/* NULL: all 0. */
void ledger_restore(struct machine *m, const struct ledger_sums *saved);

#endif
