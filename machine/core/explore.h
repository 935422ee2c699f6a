/* Systematic search: every run of a bounded set, depth first, each from the last state it shares with the one before.
 *
 * EXPLORE_DPOR: one run at least of each Mazurkiewicz class of visible steps, by dynamic partial order reduction with
 * source sets and sleep sets (Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction", POPL 2014,
 * algorithm 1), stores and their drains being steps of two agents as in Zhang, Kusano, Wang, PLDI 2015.
 * EXPLORE_BOUNDED: every run with at most so many deviations from the default order of agents (delay bounding: Emmi,
 * Qadeer, Rakamaric, POPL 2011; iterative context bounding: Musuvathi, Qadeer, PLDI 2007).
 *
 * There, a run is given up in a state that another one has come to with as many deviations or fewer and the same agent
 * next. That the state is the same follows from the class of the steps so far (classes.h), by 56 bits of a hash.
 *
 * Nothing is cut short silently: `cut` says why runs may be missing. */
#ifndef RACETAPE_EXPLORE_H
#define RACETAPE_EXPLORE_H

#include "execute.h"

struct snapshot;

enum explore_mode { EXPLORE_DPOR, EXPLORE_BOUNDED };

enum explore_cut {
	CUT_NONE,
	CUT_FRAMES,	/* a run had more visible steps than there is room for */
	CUT_INTERRUPT,	/* an interrupt was pending: DPOR knows nothing of them */
	CUT_CHOICE,	/* a run ended where a CPU waits for an answer */
	CUT_OVERLOOKED, /* see agents.h */
	CUT_FREED,	/* a page with shared words was freed: DPOR does not know that touching it depends on that */
};

struct explore_options {
	enum explore_mode mode;
	enum shared_scope scope; /* whose shared words are visible */
	bool eager;	      /* stores drain at once */
	uint32_t bound;	      /* deviations at most */
	uint32_t ticks;	      /* timer ticks at most (bounded) */
	uint32_t frames_max;  /* visible steps of a run at most */
	uint64_t step_max;    /* where a run ends unfinished */
};

struct explorer;

/* Searches from the machine as it stands. NULL if memory is short. */
struct explorer *explorer_create(struct machine *m, const struct explore_options *options);
void explorer_destroy(struct explorer *e);

enum explore_result {
	EXPLORE_RUN,	   /* a run has ended, as *stop says; the machine stands at its end */
	EXPLORE_LOOK,	   /* many runs were given up; the caller may want to stop, or else asks again */
	EXPLORE_DONE,	   /* there are no more runs */
	EXPLORE_NO_MEMORY,
};

/* The next run. Runs that turn out to repeat what was seen are counted and passed over. */
enum explore_result explorer_next(struct explorer *e, enum stop *stop);
/* Makes the last run again from its beginning, so that the machine's choices say all of it. */
enum stop explorer_repeat(struct explorer *e);

/* One random descent from the beginning, for DPOR and before the first run (Knuth, Estimating the efficiency of backtrack
 * programs, Mathematics of Computation 29, 1975): in the tree in which sleep sets alone keep equivalent runs apart, and each class
 * has one leaf where a run has ended (Godefroid, LNCS 1032, 1996). *estimate: in the mean over many seeds, the number of classes; what one
 * descent says is the product of its choices, or 0 where all agents slept. Runs end as in explorer_next, EXPLORE_RUN. */
enum explore_result explorer_descend(struct explorer *e, uint64_t seed, double *estimate);

struct explore_counts {
	uint64_t runs, blocked; /* ended; given up because all agents slept, or in a state that was seen */
	uint64_t steps_made, steps_shared; /* visible steps executed anew; spared by going on from a shared state */
	uint32_t depth;	     /* visible steps of the last run */
	uint32_t deviations; /* of the last run */
	enum explore_cut cut;
};

/* Whether a run was begun. */
bool explorer_started(const struct explorer *e);
const struct explore_counts *explorer_counts(const struct explorer *e);
/* Agents of the last run's visible steps, unless `agents` is NULL; how many there are, none once there are no more runs. */
uint32_t explorer_path(const struct explorer *e, uint8_t *agents);

#endif
