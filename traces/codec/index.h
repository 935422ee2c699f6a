/* Noting what rows touch while they are coded; the index is made of it in index.c. */
#ifndef RACETAPE_INDEX_H
#define RACETAPE_INDEX_H

#include "codec.h"
#include "predict.h"

enum {
	WORDS_PER_PAGE = CODEC_PAGE_BYTES / 8,
	PAGES_PER_BLOCK = 64,
	BLOCKS_MAX = 256,
	PAGES_MAX = PAGES_PER_BLOCK * BLOCKS_MAX, /* 42 MB while the index is built */
	PAGE_SLOT_BITS = 15,
	PAGE_SLOTS = 1 << PAGE_SLOT_BITS,
	RECENT_PAGES = 64,
	SEEN_BITS = 8,
};
static_assert(PAGE_SLOTS >= 2 * PAGES_MAX, "slots are found without long searches");

struct page_words {
	uint64_t page;
	uint8_t flags[WORDS_PER_PAGE];
	uint32_t row[WORDS_PER_PAGE];
};

/* What the rows of one site do to memory. */
struct effect {
	uint64_t signs; /* bits of the value that make it negative */
	uint32_t count; /* of rows */
	uint8_t flags;	/* WORD_..., but for WORD_NEGATIVE */
	uint8_t negative; /* WORD_NEGATIVE if the sign of what is written counts */
	uint8_t size;	  /* bytes, at least 1 */
	uint8_t trace;
};

struct index_builder {
	const struct index_rules *rules;
	struct recent_page {
		uint64_t page;
		struct page_words *words;
	} recent[RECENT_PAGES]; /* by the page's lower bits */
	struct page_words *blocks[BLOCKS_MAX];
	size_t page_count;
	uint16_t slot[PAGE_SLOTS]; /* by hash of the page: its number plus 1, or 0 */
	/* With some of them more than once. */
	uint64_t *pcs;
	size_t pc_count, pc_room;
	struct operand_entry *operands;
	size_t operand_count, operand_room;
	struct operand_entry seen_operand[1 << SEEN_BITS];
	uint64_t kind_count[256];
	struct page_words spare; /* takes what cannot be noted: then there will be no index */
	bool no_memory, too_many;
};

/* NULL if memory is short. */
struct index_builder *index_new(const struct index_rules *rules);
void index_free(struct index_builder *b);
/* Rows of `pc` and `meta` will come; the count of what the effect was before is kept. */
void index_site(struct index_builder *b, struct effect *effect, uint32_t meta_before, uint64_t pc, uint32_t meta);
/* As build_index. `effects` and `metas` are those of all sites. */
bool index_finish(struct index_builder *b, uint8_t **index, size_t *index_bytes);

/* The slow parts of note_row. */
struct page_words *index_page(struct index_builder *b, uint64_t page);
void index_operands(struct index_builder *b, const struct row *row);

ALWAYS_INLINE void note_word(struct index_builder *b, uint64_t word, uint8_t flags, uint32_t number)
{
	uint64_t page = word / WORDS_PER_PAGE;
	const struct recent_page *recent = &b->recent[page % RECENT_PAGES];
	struct page_words *p = likely(recent->page == page) ? recent->words : index_page(b, page);
	size_t at = word % WORDS_PER_PAGE;
	p->flags[at] |= flags;
	/* Without a branch, which could not be foretold. */
	p->row[at] = flags & WORD_WRITTEN ? number : p->row[at];
}

/* Which words row `number` touches, and how. */
ALWAYS_INLINE void note_row(struct index_builder *b, struct effect *effect, const struct row *row, uint32_t number)
{
	effect->count++;
	if (unlikely(!effect->flags)) {
		if (effect->trace)
			index_operands(b, row);
		return;
	}
	bool negative = row->value & effect->signs || row->phys & (effect->size - 1u);
	uint8_t flags = effect->flags | (negative ? effect->negative : 0);
	note_word(b, row->phys >> 3, flags, number);
	uint32_t last = (uint32_t)(row->phys & 7) + effect->size - 1;
	for (uint32_t more = last / 8; unlikely(more); more--)
		note_word(b, (row->phys >> 3) + more, flags, number);
}

#endif
