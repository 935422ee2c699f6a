/* Visible steps: those that touch memory which several CPUs or tasks share. Everything else a CPU does is local and
 * commutes with what others do, so that nothing is lost if schedules change CPUs at visible steps only.
 *
 * Which words are shared is told from outside (Machine.watch). Pages with such words are never accessed directly, so
 * that the rest of the machine pays nothing. A run that `asks` stops before an instruction that would touch one, with
 * nothing of it done and no translation looked up for it; otherwise what is touched is noted. A plain store of a CPU whose stores are held is local: it is
 * its drain that others see. */
#ifndef RACETAPE_VISIBLE_H
#define RACETAPE_VISIBLE_H

#include "machine.h"

/* Set in a note's address: it is a port or a triple fault, not memory, and ends the run. */
#define VISIBLE_PORT (UINT64_C(1) << 63)

/* Makes `words`, a bit for each aligned 4 bytes of RAM, the set of shared words of this scope; NULL: there is none. False
 * if memory is short: then there is none, either. */
bool visible_set(struct machine *m, enum shared_scope scope, const uint8_t *words);
/* Which set is in force; NULL: none. */
void visible_switch(struct machine *m, const struct shared *set);
/* The set of a scope, NULL if there is none. */
ALWAYS_INLINE const struct shared *visible_scope(const struct machine *m, enum shared_scope scope)
{
	return m->watch.sets[scope].words ? &m->watch.sets[scope] : NULL;
}

void visible_deinit(struct machine *m);
/* Whether any of these bytes lie in a shared word. */
bool visible_contains(const struct machine *m, uint64_t phys, uint64_t size);
/* An access that the instruction being executed is about to make: true if the run has to stop before it. */
bool visible_access(struct cpu *c, uint64_t phys, uint32_t size, bool writes, uint32_t info);
/* Before a look-up changes a TLB entry or (`entry` NULL) memory: a run that asks takes it back if it then stops. */
void visible_save(struct cpu *c, struct tlb_entry *entry, uint64_t phys, uint32_t size);
/* Before something that cannot be taken back: the run no longer stops before this step, but ends behind it. */
void visible_commit(struct cpu *c);
/* Before the first of several stores of an instruction, which are taken back, too. */
void visible_save_stores(struct cpu *c);
/* Before a store that may be direct, of an instruction that may stop behind it; the page has just been looked up. */
void visible_save_memory(struct cpu *c, uint64_t addr, uint32_t size);
/* Before an instruction of which some loads are made: they stay made. */
void visible_save_partial(struct cpu *c);
/* The run stops before the instruction it was about to execute, behind `step`: takes back what was done of it. */
void visible_undo(struct cpu *c, uint64_t step);
/* Before the machine ends, by a port or (0) by a triple fault: true if the run has to stop before it. */
bool visible_end(struct cpu *c, uint32_t port);
/* The clock is read, which goes with the steps of all CPUs: no two runs are equivalent then. */
void visible_clock(struct machine *m);
/* Before a look-up drains the CPU's buffer, which cannot be taken back: true if the run has to stop before it. */
bool visible_flush(struct cpu *c);
/* Before a frame of `count` words is pushed, with nothing of it done: true if the run has to stop because a store to a shared word
 * would have to drain to make room for it. */
bool visible_room(struct cpu *c, uint32_t count);
/* A held store reaches memory, within whatever step. */
void visible_drain(struct machine *m, const struct store_entry *entry);

/* A comparison of the instruction being executed has failed: it has written back what it read, which nobody can tell from
 * a load. */
void visible_unequal(struct cpu *c);

/* Accesses to this page must not be direct. */
ALWAYS_INLINE bool visible_page(const struct machine *m, uint32_t frame)
{
	return unlikely(m->watch.set) && m->watch.set->pages[frame];
}

#endif
