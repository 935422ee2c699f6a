/* Which runs are the same: a hash for the Mazurkiewicz class of a run's visible steps, and a map of the pairs of
 * instructions that were seen to touch a word one after the other on different CPUs (exploration.md 2.1, "Hashes").
 *
 * A visible step's hash is made of who takes it, its instruction, and the hashes of its direct predecessors: the step
 * before of the same CPU (with its interrupts) or store buffer, and those at the same words it depends on. The sum over all steps
 * is equal for runs that differ only in the order of independent steps. */
#ifndef RACETAPE_CLASSES_H
#define RACETAPE_CLASSES_H

#include "machine.h"

enum { CLASS_ROWS_MAX = 2 * VISIBLE_NOTES_MAX };

/* A shared word as this run has left it. */
struct class_word {
	uint64_t word;
	uint64_t run;	    /* the run this row is of */
	uint64_t written;   /* hash of the last step that wrote it */
	uint64_t read;	    /* sum of the hashes of those that have read it since */
	uint64_t written_pc, read_pc;
	uint32_t written_by, read_by; /* CPU + 1 */
};

/* False if memory is short. */
bool classes_init(struct classes *s);
void classes_deinit(struct classes *s);
/* A run begins. */
void classes_start(struct machine *m);

/* What a step replaced. */
struct class_undo {
	uint32_t chain, row_count;
	uint64_t last, hash;
	uint32_t rows[CLASS_ROWS_MAX];
	struct class_word words[CLASS_ROWS_MAX];
};

/* The visible step that `agent` has just taken; m->watch.notes says what it touched. `undo` may be NULL. */
void classes_step(struct machine *m, uint32_t agent, uint64_t pc, struct class_undo *undo);
/* Takes the last step back. */
void classes_undo(struct machine *m, const struct class_undo *undo);

#endif
