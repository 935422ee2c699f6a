#include "classes.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS_LOG2 = 14, WORDS = 1 << WORDS_LOG2, PROBES_MAX = 64, WORD_SHIFT = 2 };

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

bool classes_init(struct classes *s)
{
	s->words = calloc(WORDS, sizeof(*s->words));
	return s->words;
}

void classes_deinit(struct classes *s)
{
	free(s->words);
	*s = (struct classes){0};
}

void classes_start(struct machine *m)
{
	struct classes *s = &m->classes;
	s->run++;
	s->hash = 0;
	memset(s->last, 0, sizeof(s->last));
	memset(s->count, 0, sizeof(s->count));
}

/* The row of a word; where too many words are in the way, one that stands for several: runs look more different then than
 * they are, never less. */
static struct class_word *find(struct classes *s, uint64_t word)
{
	uint64_t at = mix(word);
	for (uint32_t i = 1;; i++, at++) {
		struct class_word *row = &s->words[at & (WORDS - 1)];
		if (row->run != s->run)
			*row = (struct class_word){.word = word, .run = s->run};
		if (row->word == word || i == PROBES_MAX)
			return row;
	}
}

static void meet_pair(struct classes *s, uint64_t before, uint64_t pc)
{
	uint64_t bit = mix(before * 3 + pc) % CLASS_PAIRS;
	s->pairs[bit / 8] |= (uint8_t)(1 << bit % 8);
}

void classes_step(struct machine *m, uint32_t agent, uint64_t pc, struct class_undo *undo)
{
	struct classes *s = &m->classes;
	uint32_t number = agent % CPU_MAX, cpu = number + 1;
	uint32_t chain = agent - number == AGENT_DRAIN ? agent : number; /* interrupts and ticks are the CPU's */
	uint64_t hash = mix(s->last[chain] + agent + 1) + pc;
	struct class_word *rows[CLASS_ROWS_MAX];
	bool writes[CLASS_ROWS_MAX];
	uint32_t count = 0;
	if (agent >= AGENT_INTERRUPT)
		hash += mix(m->cpus[number].s.retired + 1); /* where it comes among local instructions */
	for (uint32_t i = 0; i < m->watch.count; i++) {
		const struct visible_note *note = &m->watch.notes[i];
		uint64_t first = note->phys >> WORD_SHIFT, last = (note->phys + note->size - 1) >> WORD_SHIFT;
		for (uint64_t word = first; word <= last; word++) {
			if (count == CLASS_ROWS_MAX) { /* it touches more: then its place among all steps counts */
				hash += s->hash * 11;
				break;
			}
			struct class_word *row = rows[count] = find(s, word);
			writes[count++] = note->writes;
			hash += row->written * 5 + (note->writes ? row->read * 7 : 0);
			if (row->written_by && row->written_by != cpu)
				meet_pair(s, row->written_pc, pc);
			if (note->writes && row->read_by && row->read_by != cpu)
				meet_pair(s, row->read_pc, pc);
		}
	}
	if (undo) {
		undo->chain = chain;
		undo->last = s->last[chain];
		undo->hash = s->hash;
		undo->row_count = count;
		for (uint32_t i = 0; i < count; i++) {
			undo->rows[i] = (uint32_t)(rows[i] - s->words);
			undo->words[i] = *rows[i];
		}
	}
	hash = mix(hash);
	for (uint32_t i = 0; i < count; i++) {
		struct class_word *row = rows[i];
		if (writes[i]) {
			row->written = hash;
			row->written_by = cpu;
			row->written_pc = pc;
			row->read = 0;
			row->read_by = 0;
		} else {
			row->read += hash;
			row->read_by = cpu;
			row->read_pc = pc;
		}
	}
	s->last[chain] = hash;
	s->count[agent]++;
	s->hash += mix(hash);
}

void classes_undo(struct machine *m, const struct class_undo *undo)
{
	struct classes *s = &m->classes;
	for (uint32_t i = 0; i < undo->row_count; i++)
		s->words[undo->rows[i]] = undo->words[i];
	s->last[undo->chain] = undo->last;
	s->hash = undo->hash;
}
