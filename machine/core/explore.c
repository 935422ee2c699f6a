#include "explore.h"

#include <stdlib.h>
#include <string.h>

#include "agents.h"
#include "classes.h"
#include "snapshot.h"
#include "store_buffer.h"
#include "visible.h"

enum {
	ACTORS = AGENT_INTERRUPT, /* CPUs and store buffers: the agents that DPOR knows */
	SNAPSHOT_EVERY = 32,	  /* frames */
	LOOK_EVERY = 1024,	  /* runs given up */
	NONE = 255,
};

/* What a visible step touched. */
struct touch {
	uint32_t count;
	struct visible_note notes[VISIBLE_NOTES_MAX];
};

/* A state on the current run, and the step that was taken from it. */
struct frame {
	uint8_t agent;		  /* NONE: none yet */
	uint8_t current;	  /* whose turn it is in the default order */
	uint8_t held;		  /* bit n: the drain of CPU n's stores was put off (bounded) */
	uint8_t ticks;		  /* so far (bounded) */
	uint8_t blocked;	  /* bit n: CPU n waits until its buffer drains */
	uint32_t deviations;	  /* so far (bounded) */
	uint32_t enabled, backtrack, done, sleep; /* agents as bits */
	uint32_t number;	  /* of the step among its agent's, from 1 */
	uint32_t clock[ACTORS];	  /* the step's vector clock: steps of each agent that happen before it, or are it */
	uint32_t enqueued[CPU_MAX]; /* of CPU n: buffered visible stores; what the step added is not in it */
	uint32_t drained;	  /* visible stores that the step took out of its CPU's buffer */
	struct touch touch;
	struct touch asleep[ACTORS]; /* of agents in `sleep` or `done` */
	struct class_undo undo;	  /* of the step */
};

/* States that were come to, by hash; the number of deviations in the low byte. */
struct seen {
	uint64_t *rows; /* [1 << log2], 0 where empty */
	uint32_t log2;
	uint64_t count;
};

/* A state that runs go on from. */
struct resume {
	uint32_t depth;
	struct snapshot *snapshot;
	struct agents agents;
};

struct explorer {
	struct machine *m;
	struct explore_options options;
	struct explore_counts counts;
	uint32_t depth;	   /* frames that have taken their step */
	uint32_t allocated;
	struct frame *frames;
	struct resume *resumes; /* [0] is the beginning */
	uint32_t resume_count, resumes_allocated;
	struct seen seen;
	struct classes classes; /* of the current run; the machine's own while the search is at work */
	bool started, over;
};

static uint32_t bit(uint32_t agent)
{
	return 1u << agent;
}

static bool resume_add(struct explorer *e)
{
	if (e->resume_count == e->resumes_allocated) {
		uint32_t allocated = e->resumes_allocated ? 2 * e->resumes_allocated : 16;
		struct resume *resumes = realloc(e->resumes, allocated * sizeof(*resumes));
		if (!resumes)
			return false;
		e->resumes = resumes;
		e->resumes_allocated = allocated;
	}
	struct snapshot *snapshot = snapshot_take(e->m);
	if (!snapshot)
		return false;
	e->resumes[e->resume_count++] = (struct resume){e->depth, snapshot, e->m->agents};
	return true;
}

struct explorer *explorer_create(struct machine *m, const struct explore_options *options)
{
	assert(visible_scope(m, options->scope) && !m->tap.on);
	struct explorer *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->m = m;
	e->options = *options;
	visible_switch(m, visible_scope(m, e->options.scope));
	agents_start(m, options->eager);
	m->pool.shared_freed = false;
	e->classes.run = 1;
	if ((options->mode == EXPLORE_BOUNDED && !classes_init(&e->classes)) || !resume_add(e)) {
		explorer_destroy(e);
		return NULL;
	}
	return e;
}

void explorer_destroy(struct explorer *e)
{
	if (!e)
		return;
	for (uint32_t i = 0; i < e->resume_count; i++)
		snapshot_destroy(e->resumes[i].snapshot);
	free(e->resumes);
	free(e->frames);
	free(e->seen.rows);
	classes_deinit(&e->classes);
	free(e);
}

bool explorer_started(const struct explorer *e)
{
	return e->started;
}

const struct explore_counts *explorer_counts(const struct explorer *e)
{
	return &e->counts;
}

uint32_t explorer_path(const struct explorer *e, uint8_t *agents)
{
	for (uint32_t i = 0; agents && i < e->depth; i++)
		agents[i] = e->frames[i].agent;
	return e->depth;
}

static void resume(struct explorer *e, const struct resume *at)
{
	struct machine *m = e->m;
	visible_switch(m, visible_scope(m, e->options.scope));
	snapshot_restore(m, at->snapshot);
	m->agents = at->agents;
}

/* Lets all CPUs stand, and whoever is stuck go on, until somebody can take a visible step (STOP_plan) or the run is over. */
static enum stop stand(struct explorer *e)
{
	struct machine *m = e->m;
	for (;;) {
		enum stop stop = agents_settle(m, e->options.step_max);
		if (m->agents.overlooked)
			e->counts.cut = CUT_OVERLOOKED;
		if (stop != STOP_plan)
			return stop;
		if ((stop = machine_over(m)) != STOP_plan)
			return stop;
		if (m->step >= e->options.step_max)
			return STOP_steps;
		if (agents_enabled(m))
			return STOP_plan;
		uint32_t ticks = m->agents.ticks;
		stop = agents_stuck(m);
		if (e->options.mode == EXPLORE_DPOR && m->agents.ticks != ticks)
			e->counts.cut = CUT_INTERRUPT;
		if (stop == STOP_choice)
			e->counts.cut = CUT_CHOICE;
		if (stop != STOP_plan)
			return stop;
	}
}

/* --- dependence --- */

/* Whether the steps that touched these must keep their order, if they are of different CPUs and next to each other. A load
 * that is forwarded looks at no memory. */
static bool touches_conflict(const struct touch *a, const struct touch *b)
{
	for (uint32_t i = 0; i < a->count; i++)
		for (uint32_t j = 0; j < b->count; j++)
			if (!a->notes[i].forwarded && !b->notes[j].forwarded && notes_conflict(&a->notes[i], 1, &b->notes[j], 1))
				return true;
	return false;
}

/* Whether such a step ends the run: then it is not the same with the CPU's own stores drained. */
static bool ends(const struct touch *touch)
{
	for (uint32_t i = 0; i < touch->count; i++)
		if (touch->notes[i].phys & VISIBLE_PORT)
			return true;
	return false;
}

/* Stores to shared words in the buffer of CPU `number`. */
static uint32_t visible_stores(const struct machine *m, uint32_t number)
{
	const struct cpu *c = &m->cpus[number];
	uint32_t count = 0;
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *entry = store_buffer_entry(c, i);
		count += visible_contains(m, entry->phys, entry->size);
	}
	return count;
}

static void clock_join(uint32_t *to, const uint32_t *from)
{
	for (uint32_t i = 0; i < ACTORS; i++)
		to[i] = from[i] > to[i] ? from[i] : to[i];
}

/* The last step of `agent` before frame `end`; NULL if there is none. */
static const struct frame *last_step(const struct explorer *e, uint32_t agent, uint32_t end)
{
	while (end--)
		if (e->frames[end].agent == agent)
			return &e->frames[end];
	return NULL;
}

/* The step of CPU `number` behind which the oldest visible store in its buffer was made: the one after which there were
 * more of them for the first time since the buffer held as few as are before it. NULL: it was made before the first. */
static const struct frame *maker(const struct explorer *e, uint32_t number, uint32_t end)
{
	/* Going back, count how many stores were made behind the oldest one: it is the enqueued[number]-th from the end. */
	uint32_t left = e->frames[end].enqueued[number];
	assert(left > 0);
	for (uint32_t i = end; i--;) {
		const struct frame *f = &e->frames[i];
		uint32_t before = f->enqueued[number], after = e->frames[i + 1].enqueued[number];
		if (f->agent % CPU_MAX == number)
			after += f->drained;
		uint32_t made = after > before ? after - before : 0;
		if (made >= left)
			return f->agent == number ? f : NULL;
		left -= made;
	}
	return NULL;
}

/* The clock of the step that frame `end` has taken, without what it races with. */
static void clock_begin(const struct explorer *e, uint32_t end, uint32_t *clock)
{
	const struct frame *f = &e->frames[end];
	const struct frame *before = last_step(e, f->agent, end);
	memset(clock, 0, ACTORS * sizeof(*clock));
	if (before)
		clock_join(clock, before->clock);
	uint32_t number = f->agent % CPU_MAX;
	if (f->agent >= AGENT_DRAIN) {
		const struct frame *made = maker(e, number, end);
		if (made)
			clock_join(clock, made->clock);
		return;
	}
	/* A locked step comes after all drains before it, and one that had to wait after the drain it waited for. */
	bool locked = false;
	for (uint32_t i = 0; i < f->touch.count; i++)
		locked |= f->touch.notes[i].writes || f->touch.notes[i].locked;
	const struct frame *drain = locked ? last_step(e, AGENT_DRAIN + number, end) : NULL;
	if (drain)
		clock_join(clock, drain->clock);
	for (uint32_t i = end; i--;) {
		const struct frame *g = &e->frames[i];
		if (g->agent == number)
			break;
		if (g->agent == AGENT_DRAIN + number && g->blocked & bit(number)) {
			clock_join(clock, g->clock);
			break;
		}
	}
}

/* Agents that can be first among the steps behind frame `first` that do not happen after it, and the last one, `last`
 * (the initials of v, POPL 2014). Fills `any` with the first of them. */
static uint32_t initials(const struct explorer *e, uint32_t first, uint32_t last, uint32_t *any)
{
	const struct frame *race = &e->frames[first];
	uint32_t found = 0, seen = 0;
	uint32_t begin[ACTORS] = {0}; /* number of each agent's first step in v */
	*any = NONE;
	for (uint32_t i = first + 1; i <= last; i++) {
		const struct frame *f = &e->frames[i];
		if (i != last && f->clock[race->agent] >= race->number)
			continue; /* happens after */
		bool preceded = seen & bit(f->agent);
		for (uint32_t a = 0; a < ACTORS && !preceded; a++)
			preceded = seen & bit(a) && f->clock[a] >= begin[a];
		if (!(seen & bit(f->agent))) {
			seen |= bit(f->agent);
			begin[f->agent] = f->number;
		}
		if (preceded)
			continue;
		found |= bit(f->agent);
		if (*any == NONE)
			*any = f->agent;
	}
	return found;
}

/* The reversal of the race between the steps of frames `first` and `last` must be explored, too. */
static void reverse(struct explorer *e, uint32_t first, uint32_t last)
{
	struct frame *f = &e->frames[first];
	uint32_t any, able = initials(e, first, last, &any);
	if (able & f->backtrack)
		return;
	/* An initial that cannot go on there waits for something that the clocks do not show: then whoever can. */
	f->backtrack |= able & f->enabled ? bit((uint32_t)__builtin_ctz(able & f->enabled)) : f->enabled;
}

/* Whether the store from which the load `note` of CPU `number` in frame `after` was forwarded has drained before frame `before`. */
static bool drained_between(const struct explorer *e, uint32_t number, const struct visible_note *note, uint32_t after, uint32_t before)
{
	uint32_t left = note->forwarded;
	for (uint32_t i = after + 1; i < before && left; i++)
		left -= e->frames[i].agent == AGENT_DRAIN + number;
	return !left;
}

/* Whether the step of frame `last` depends on that of frame `first`, which is of another CPU. `masked`, bits of its notes:
 * between the two its own CPU has drained a store there, which is what it has read.
 *
 * A CPU's loads and drains do not race: a load of what its buffer holds is as good as one right behind the drain. So a load that
 * was forwarded depends on nothing before it, and others depend on it once that store has drained. */
static bool depends(const struct explorer *e, uint32_t first, uint32_t last, uint32_t masked)
{
	const struct frame *g = &e->frames[first], *f = &e->frames[last];
	for (uint32_t j = 0; j < f->touch.count; j++) {
		const struct visible_note *later = &f->touch.notes[j];
		if (later->forwarded || masked >> j & 1)
			continue;
		for (uint32_t i = 0; i < g->touch.count; i++) {
			const struct visible_note *earlier = &g->touch.notes[i];
			if (notes_conflict(earlier, 1, later, 1) &&
			    (!earlier->forwarded || drained_between(e, g->agent % CPU_MAX, earlier, first, last)))
				return true;
		}
	}
	return false;
}

/* The newest step: its clock, and the races it ends. */
static void race_all(struct explorer *e)
{
	uint32_t end = e->depth - 1;
	struct frame *f = &e->frames[end];
	uint32_t clock[ACTORS], racing[64], count = 0, masked = 0;
	clock_begin(e, end, clock);
	for (uint32_t i = end; i--;) {
		const struct frame *g = &e->frames[i];
		if (g->agent % CPU_MAX == f->agent % CPU_MAX) {
			for (uint32_t j = 0; f->agent < AGENT_DRAIN && g->agent >= AGENT_DRAIN && j < f->touch.count; j++) {
				const struct visible_note *note = &f->touch.notes[j], *drain = &g->touch.notes[0];
				bool covers = drain->phys <= note->phys && note->phys + note->size <= drain->phys + drain->size;
				masked |= (uint32_t)(covers && !note->writes) << j;
			}
			continue;
		}
		if (clock[g->agent] >= g->number || !depends(e, i, end, masked))
			continue;
		if (count < sizeof(racing) / sizeof(racing[0]))
			racing[count++] = i;
		else
			e->frames[i].backtrack |= e->frames[i].enabled; /* rare: explore all there */
		clock_join(clock, g->clock);
	}
	memcpy(f->clock, clock, sizeof(clock));
	const struct frame *before = last_step(e, f->agent, end);
	f->number = f->clock[f->agent] = before ? before->number + 1 : 1;
	for (uint32_t i = 0; i < count; i++)
		reverse(e, racing[i], end);
}

/* --- the default order --- */

/* Who goes on if the schedule does not say more: buffers drain at once, interrupts come at once, the CPU that runs goes on,
 * then the next one in turn, then stores that were put off. */
static uint32_t default_agent(const struct frame *f)
{
	uint32_t drains = f->enabled >> AGENT_DRAIN & 0xff, interrupts = f->enabled >> AGENT_INTERRUPT & 0xff;
	uint32_t cpus = f->enabled & 0xff;
	if (drains & ~(uint32_t)f->held)
		return AGENT_DRAIN + (uint32_t)__builtin_ctz(drains & ~(uint32_t)f->held);
	if (interrupts)
		return AGENT_INTERRUPT + (uint32_t)__builtin_ctz(interrupts);
	for (uint32_t i = 0; i < CPU_MAX; i++)
		if (cpus & bit((f->current + i) % CPU_MAX))
			return (f->current + i) % CPU_MAX;
	assert(drains);
	return AGENT_DRAIN + (uint32_t)__builtin_ctz(drains);
}

/* What the frame behind `f` inherits of the default order. */
static void order_follow(const struct frame *f, struct frame *next)
{
	uint32_t usual = default_agent(f);
	next->current = f->agent < AGENT_DRAIN || f->agent >= AGENT_INTERRUPT ? f->agent % CPU_MAX : f->current;
	next->held = f->held;
	next->ticks = (uint8_t)(f->ticks + (f->agent >= AGENT_TICK));
	next->deviations = f->deviations + (f->agent != usual);
	if (f->agent != usual && usual - usual % CPU_MAX == AGENT_DRAIN)
		next->held |= (uint8_t)bit(usual % CPU_MAX);
	if (f->agent - f->agent % CPU_MAX == AGENT_DRAIN)
		next->held &= (uint8_t)~bit(f->agent % CPU_MAX);
}

/* --- states that were seen --- */

enum { SEEN_LOG2_MIN = 16, SEEN_LOG2_MAX = 26 };

static void seen_put(struct seen *s, uint64_t row)
{
	uint64_t at = row >> 8;
	while (s->rows[at & ((UINT64_C(1) << s->log2) - 1)])
		at++;
	s->rows[at & ((UINT64_C(1) << s->log2) - 1)] = row;
	s->count++;
}

/* Makes room for one more; without it, states are no longer remembered, which costs time but loses nothing. */
static bool seen_room(struct seen *s)
{
	if (s->rows && s->count < UINT64_C(1) << s->log2 >> 1)
		return true;
	uint32_t log2 = s->rows ? s->log2 + 1 : SEEN_LOG2_MIN;
	struct seen bigger = {.log2 = log2, .rows = log2 <= SEEN_LOG2_MAX ? calloc(UINT64_C(1) << log2, 8) : NULL};
	if (!bigger.rows)
		return false;
	for (uint64_t i = 0; s->rows && i < UINT64_C(1) << s->log2; i++)
		if (s->rows[i])
			seen_put(&bigger, s->rows[i]);
	free(s->rows);
	*s = bigger;
	return true;
}

/* Whether the state of frame `f` was come to before with as few deviations; if not it is from now on. */
static bool seen_before(struct explorer *e, const struct frame *f)
{
	struct seen *s = &e->seen;
	uint64_t order = (uint64_t)f->current | (uint64_t)f->held << 8 | (uint64_t)f->ticks << 16;
	uint64_t key = e->m->classes.hash ^ order * UINT64_C(0x9e3779b97f4a7c15);
	key = (key ^ key >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	key = (key ^ key >> 32) << 8;
	if (f->deviations >= UINT8_MAX || !seen_room(s)) /* no room for the number in a row */
		return false;
	uint64_t mask = (UINT64_C(1) << s->log2) - 1, row;
	for (uint64_t at = key >> 8; (row = s->rows[at & mask]); at++) {
		if (row >> 8 != key >> 8)
			continue;
		if ((row & 0xff) <= f->deviations + 1)
			return true;
		s->rows[at & mask] = key | (f->deviations + 1);
		return false;
	}
	seen_put(s, key | (f->deviations + 1));
	return false;
}

/* --- going --- */

/* Prepares the frame of the state the machine stands in. False if memory is short. */
static bool frame_open(struct explorer *e)
{
	struct machine *m = e->m;
	if (e->depth + 1 >= e->allocated) { /* one more: the frame behind the last step */
		uint32_t allocated = e->allocated ? 2 * e->allocated : 64;
		struct frame *frames = realloc(e->frames, allocated * sizeof(*frames));
		if (!frames)
			return false;
		e->frames = frames;
		e->allocated = allocated;
	}
	struct frame *f = &e->frames[e->depth];
	const struct frame *before = e->depth ? f - 1 : NULL;
	f->agent = NONE;
	f->current = (uint8_t)m->auto_cpu;
	f->held = f->ticks = 0;
	f->deviations = 0;
	f->enabled = agents_enabled(m);
	f->backtrack = f->done = f->sleep = 0;
	f->blocked = 0;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		f->enqueued[i] = visible_stores(m, i);
		f->blocked |= (uint8_t)(m->agents.cpu[i].at == AT_BUFFER ? bit(i) : 0);
	}
	if (e->options.mode == EXPLORE_DPOR) {
		if (f->enabled >> AGENT_INTERRUPT)
			e->counts.cut = CUT_INTERRUPT;
		if (!before)
			return true;
		for (uint32_t rest = (before->sleep | before->done) & ~bit(before->agent); rest; rest &= rest - 1) {
			uint32_t agent = (uint32_t)__builtin_ctz(rest);
			bool own = agent % CPU_MAX == before->agent % CPU_MAX;
			bool alike = own && !ends(&before->asleep[agent]) && !ends(&before->touch);
			bool gone = own && agent >= AGENT_DRAIN && before->drained; /* what slept was the drain of a store that has drained */
			if (agent >= ACTORS || gone || (!alike && touches_conflict(&before->asleep[agent], &before->touch)))
				continue;
			f->sleep |= bit(agent);
			f->asleep[agent] = before->asleep[agent];
			/* What would have been forwarded is now read from memory, where others may write. */
			struct touch *touch = &f->asleep[agent];
			for (uint32_t i = 0; own && before->agent >= AGENT_DRAIN && i < touch->count; i++)
				touch->notes[i].forwarded -= touch->notes[i].forwarded > 0;
		}
		return true;
	}
	if (before)
		order_follow(before, f);
	f->held &= (uint8_t)~f->blocked; /* a store is put off until its CPU waits for it */
	if (f->ticks < e->options.ticks)
		f->enabled |= agents_ticks(m);
	if (f->deviations < e->options.bound && f->enabled)
		f->backtrack = f->enabled & ~bit(default_agent(f));
	return true;
}

/* Takes the step of `agent` from the newest frame. */
static void frame_take(struct explorer *e, uint32_t agent)
{
	struct machine *m = e->m;
	struct frame *f = &e->frames[e->depth];
	f->agent = (uint8_t)agent;
	agents_take(m, agent);
	if (e->options.mode == EXPLORE_BOUNDED)
		classes_step(m, agent, agent < AGENT_DRAIN ? m->cpus[agent].pc : 0, &f->undo);
	f->drained = m->watch.drained;
	f->touch.count = m->watch.count;
	memcpy(f->touch.notes, m->watch.notes, sizeof(f->touch.notes));
	f->backtrack |= bit(agent);
	f->done |= bit(agent);
	if (agent < ACTORS)
		f->asleep[agent] = f->touch;
	/* What others had left to do is not seen any more, nor with what it races: whoever can go on first has to be tried. */
	if (m->s.ended && e->options.mode == EXPLORE_DPOR)
		f->backtrack |= f->enabled & (bit(ACTORS) - 1);
	/* Stores that drained within a CPU's step might have done so before it, with steps of others in between. */
	if (e->options.mode == EXPLORE_DPOR && agent < AGENT_DRAIN && f->drained)
		f->backtrack |= f->enabled & bit(AGENT_DRAIN + agent);
	e->depth++;
	e->counts.steps_made++;
}

/* Goes back to the deepest frame from which something is left to be tried, and takes that step. False if there is none.
 * *ret: whether memory sufficed. */
static bool back(struct explorer *e, bool *ret)
{
	uint32_t left = 0;
	*ret = true;
	while (e->depth) {
		struct frame *f = &e->frames[e->depth - 1];
		if (e->options.mode == EXPLORE_BOUNDED)
			classes_undo(e->m, &f->undo);
		left = f->backtrack & ~f->done & ~f->sleep;
		if (left)
			break;
		e->depth--;
	}
	if (!e->depth)
		return false;
	e->depth--;
	while (e->resumes[e->resume_count - 1].depth > e->depth)
		snapshot_destroy(e->resumes[--e->resume_count].snapshot);
	const struct resume *at = &e->resumes[e->resume_count - 1];
	resume(e, at);
	e->counts.steps_shared += at->depth;
	for (uint32_t i = at->depth; i < e->depth; i++) {
		stand(e);
		agents_take(e->m, e->frames[i].agent);
		e->counts.steps_made++;
	}
	stand(e);
	/* A state that is come back to more often than not is worth a snapshot. */
	if (e->depth - at->depth >= SNAPSHOT_EVERY)
		*ret = resume_add(e);
	frame_take(e, (uint32_t)__builtin_ctz(left));
	return true;
}

/* The machine counts its own runs' classes; the search has its own, and leaves those alone. */
static void swap_classes(struct explorer *e, bool search)
{
	struct classes others = e->m->classes;
	e->m->classes = e->classes;
	e->classes = others;
	e->m->classes.off = search;
}

static enum explore_result next(struct explorer *e, enum stop *stop)
{
	bool memory = true;
	uint32_t given_up = 0;
	if (e->over)
		return EXPLORE_DONE;
	for (;;) {
		if (!e->started) {
			resume(e, &e->resumes[0]);
			e->started = true;
		} else if (!back(e, &memory)) {
			e->over = true;
			return memory ? EXPLORE_DONE : EXPLORE_NO_MEMORY;
		} else if (e->options.mode == EXPLORE_DPOR) {
			race_all(e);
		}
		bool asleep = false;
		for (;;) {
			*stop = stand(e);
			if (e->options.mode == EXPLORE_DPOR && e->m->pool.shared_freed && !e->counts.cut)
				e->counts.cut = CUT_FREED;
			if (*stop != STOP_plan)
				break;
			if (e->depth >= e->options.frames_max) {
				e->counts.cut = CUT_FRAMES;
				*stop = STOP_steps;
				break;
			}
			if (!memory || !frame_open(e))
				return EXPLORE_NO_MEMORY;
			struct frame *f = &e->frames[e->depth];
			bool comes_back = e->options.mode == EXPLORE_DPOR || f->deviations < e->options.bound;
			if (comes_back && e->depth >= e->resumes[e->resume_count - 1].depth + SNAPSHOT_EVERY &&
			    !(memory = resume_add(e)))
				return EXPLORE_NO_MEMORY;
			if (e->options.mode == EXPLORE_BOUNDED && f->current != e->frames[e->depth ? e->depth - 1 : 0].current) {
				asleep = seen_before(e, f);
				if (asleep)
					break;
			}
			uint32_t able = f->enabled & ~f->sleep;
			if (e->options.mode == EXPLORE_DPOR)
				able &= bit(ACTORS) - 1;
			asleep = !able;
			if (asleep)
				break;
			frame_take(e, e->options.mode == EXPLORE_DPOR ? (uint32_t)__builtin_ctz(able) : default_agent(f));
			if (e->options.mode == EXPLORE_DPOR)
				race_all(e);
		}
		if (asleep) {
			e->counts.blocked++;
			if (++given_up == LOOK_EVERY)
				return EXPLORE_LOOK;
			continue;
		}
		e->counts.runs++;
		e->counts.depth = e->depth;
		e->counts.deviations = 0;
		if (e->depth && e->options.mode == EXPLORE_BOUNDED) {
			struct frame end;
			order_follow(&e->frames[e->depth - 1], &end);
			e->counts.deviations = end.deviations;
		}
		return EXPLORE_RUN;
	}
}

/* --- Knuth's descents --- */

static const double INDEPENDENT_WEIGHT = 0.5;

/* Finds out what each of the agents in `able` would touch. False if memory is short. */
static bool try_all(struct explorer *e, uint32_t able)
{
	struct machine *m = e->m;
	struct frame *f = &e->frames[e->depth];
	struct resume here = {e->depth, snapshot_take(m), m->agents};
	if (!here.snapshot)
		return false;
	for (; able; able &= able - 1) {
		struct touch *touch = &f->asleep[__builtin_ctz(able)];
		agents_take(m, (uint32_t)__builtin_ctz(able));
		touch->count = m->watch.count;
		memcpy(touch->notes, m->watch.notes, sizeof(touch->notes));
		resume(e, &here);
	}
	snapshot_destroy(here.snapshot);
	return true;
}

/* One of the agents in `able`, drawn; those before it are put to sleep. One whose step is independent of such a step has the fewer
 * leaves behind it the longer nobody wakes the other: it is drawn the less often. *probability: of what was drawn. */
static uint32_t draw_agent(struct frame *f, uint32_t able, uint64_t random, double *probability)
{
	double weight[ACTORS], sum = 0;
	for (uint32_t rest = able; rest; rest &= rest - 1) {
		uint32_t agent = (uint32_t)__builtin_ctz(rest);
		weight[agent] = 1;
		for (uint32_t before = able & (bit(agent) - 1); before; before &= before - 1) {
			uint32_t other = (uint32_t)__builtin_ctz(before);
			if (other % CPU_MAX == agent % CPU_MAX || !touches_conflict(&f->asleep[other], &f->asleep[agent]))
				weight[agent] *= INDEPENDENT_WEIGHT;
		}
		sum += weight[agent];
	}
	double at = (double)(random >> 11) / (double)(UINT64_C(1) << 53) * sum;
	uint32_t agent = (uint32_t)__builtin_ctz(able);
	while (at >= weight[agent] && able & (able - 1)) {
		at -= weight[agent];
		f->done |= bit(agent);
		able &= able - 1;
		agent = (uint32_t)__builtin_ctz(able);
	}
	*probability = weight[agent] / sum;
	return agent;
}

/* SplitMix64's output function, of seed and step. */
static uint64_t draw(uint64_t seed, uint64_t step)
{
	uint64_t x = seed + (step + 1) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static enum explore_result descend(struct explorer *e, uint64_t seed, double *estimate)
{
	*estimate = 1;
	resume(e, &e->resumes[0]);
	while (stand(e) == STOP_plan) {
		if (e->depth >= e->options.frames_max) {
			e->counts.cut = CUT_FRAMES;
			return EXPLORE_RUN;
		}
		if (!frame_open(e))
			return EXPLORE_NO_MEMORY;
		struct frame *f = &e->frames[e->depth];
		uint32_t able = f->enabled & ~f->sleep & (bit(ACTORS) - 1);
		if (!able) {
			*estimate = 0;
			return EXPLORE_RUN;
		}
		double probability = 1;
		uint32_t agent = (uint32_t)__builtin_ctz(able);
		if (able & (able - 1)) {
			if (!try_all(e, able))
				return EXPLORE_NO_MEMORY;
			agent = draw_agent(f, able, draw(seed, e->depth), &probability);
		}
		*estimate /= probability;
		frame_take(e, agent);
	}
	return EXPLORE_RUN;
}

enum explore_result explorer_descend(struct explorer *e, uint64_t seed, double *estimate)
{
	assert(e->options.mode == EXPLORE_DPOR && !e->started);
	struct explore_counts counts = e->counts;
	swap_classes(e, true);
	enum explore_result result = descend(e, seed, estimate);
	swap_classes(e, false);
	e->counts = counts;
	e->counts.depth = e->depth;
	e->depth = 0;
	return result;
}

enum explore_result explorer_next(struct explorer *e, enum stop *stop)
{
	e->m->pool.looks = true;
	swap_classes(e, true);
	enum explore_result result = next(e, stop);
	swap_classes(e, false);
	return result;
}

enum stop explorer_repeat(struct explorer *e)
{
	e->m->pool.looks = true;
	swap_classes(e, true);
	resume(e, &e->resumes[0]);
	for (uint32_t i = 0; i < e->depth; i++) {
		stand(e);
		agents_take(e->m, e->frames[i].agent);
	}
	enum stop stop = stand(e);
	swap_classes(e, false);
	return stop;
}
