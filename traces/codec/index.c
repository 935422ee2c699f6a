/* The index of a chunk's events: docs/tape-format.md, section "Index". */
#include "index.h"

#include <stdlib.h>

enum { NUMBER_MAX = 10 /* bytes of a varint */ };

/* Little endian, seven bits a byte, the upper bit set in all but the last. */
static uint8_t *put_varint(uint8_t *to, uint64_t x)
{
	for (; x > 127; x >>= 7)
		*to++ = (uint8_t)(x | 128);
	*to++ = (uint8_t)x;
	return to;
}

/* -- building -- */

struct index_builder *index_new(const struct index_rules *rules)
{
	struct index_builder *b = calloc(1, sizeof(*b));
	if (b) {
		b->rules = rules;
		for (size_t i = 0; i < RECENT_PAGES; i++)
			b->recent[i].page = UINT64_MAX; /* which no word's page is */
	}
	return b;
}

void index_free(struct index_builder *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < BLOCKS_MAX; i++)
		free(b->blocks[i]);
	free(b->pcs);
	free(b->operands);
	free(b);
}

/* `items` with room for one more than `count`, or NULL. As little memory as needed: to have the system clear it costs more than to
 * fill it. */
static void *grow(void *items, size_t item_bytes, size_t count, size_t *room)
{
	if (count < *room)
		return items;
	size_t more = *room ? 2 * *room : 256;
	void *grown = realloc(items, more * item_bytes);
	*room = grown ? more : *room;
	return grown;
}

static struct page_words *page_numbered(const struct index_builder *b, size_t number)
{
	return &b->blocks[number / PAGES_PER_BLOCK][number % PAGES_PER_BLOCK];
}

static struct page_words *page_add(struct index_builder *b, uint64_t page, uint16_t *slot)
{
	size_t number = b->page_count;
	if (number == PAGES_MAX) {
		b->too_many = true;
		return &b->spare;
	}
	struct page_words **block = &b->blocks[number / PAGES_PER_BLOCK];
	if (!*block)
		*block = malloc(PAGES_PER_BLOCK * sizeof(**block));
	if (!*block) {
		b->no_memory = true;
		return &b->spare;
	}
	struct page_words *p = page_numbered(b, number);
	p->page = page;
	memset(p->flags, 0, sizeof(p->flags));
	*slot = (uint16_t)++b->page_count;
	return p;
}

__attribute__((noinline)) struct page_words *index_page(struct index_builder *b, uint64_t page)
{
	size_t at = mix(page, PAGE_SLOT_BITS);
	while (b->slot[at] && page_numbered(b, b->slot[at] - 1u)->page != page)
		at = (at + 1) % PAGE_SLOTS;
	struct page_words *p = b->slot[at] ? page_numbered(b, b->slot[at] - 1u) : page_add(b, page, &b->slot[at]);
	b->recent[page % RECENT_PAGES] = (struct recent_page){page, p};
	return p;
}

static void note_operand(struct index_builder *b, uint64_t key, uint64_t value)
{
	struct operand_entry *seen = &b->seen_operand[mix(key << 56 ^ value, SEEN_BITS)];
	if (key != UINT64_MAX && seen->key == key + 1 && seen->value == value)
		return;
	struct operand_entry *operands = grow(b->operands, sizeof(*b->operands), b->operand_count, &b->operand_room);
	if (!operands) {
		b->no_memory = true;
		return;
	}
	b->operands = operands;
	*seen = (struct operand_entry){key + 1, value};
	b->operands[b->operand_count++] = (struct operand_entry){key, value};
}

__attribute__((noinline)) void index_operands(struct index_builder *b, const struct row *row)
{
	note_operand(b, 2 * row->phys, row->value);
	note_operand(b, 2 * row->phys + 1, row->addr);
}

static struct effect effect_of(const struct index_rules *rules, uint32_t meta)
{
	uint8_t kind = (uint8_t)meta, size = (uint8_t)(meta >> 16), info = (uint8_t)(meta >> 24);
	bool drained = info & rules->drained, device = info & rules->device;
	struct effect effect = {.size = size ? size : 1};
	switch ((enum index_role)rules->role[kind]) {
	case ROLE_LOAD:
		effect.flags = device ? 0 : WORD_READ;
		break;
	case ROLE_STORE:
		effect.flags = device ? 0 : drained ? WORD_WRITTEN : WORD_ISSUED;
		effect.negative = drained ? WORD_NEGATIVE : 0;
		break;
	case ROLE_DRAIN:
		effect.flags = device ? 0 : WORD_WRITTEN;
		effect.negative = WORD_NEGATIVE;
		break;
	case ROLE_WALK:
		effect.flags = WORD_READ;
		break;
	case ROLE_AD_UPDATE: /* a page-table entry: its uppermost bit is no sign */
		effect.flags = WORD_WRITTEN;
		effect.size = size < 4 ? 4 : size;
		break;
	case ROLE_TRACE:
		effect.trace = true;
		break;
	case ROLE_NONE:
		break;
	}
	/* The sign of what is written, or of either half: a store of 8 bytes may be of two counters. */
	effect.signs = UINT64_C(1) << ((8 * effect.size - 1) & 63) | (uint64_t)(effect.size == 8) << 31;
	return effect;
}

void index_site(struct index_builder *b, struct effect *effect, uint32_t meta_before, uint64_t pc, uint32_t meta)
{
	b->kind_count[(uint8_t)meta_before] += effect->count;
	*effect = effect_of(b->rules, meta);
	uint64_t *pcs = grow(b->pcs, sizeof(*b->pcs), b->pc_count, &b->pc_room);
	if (!pcs) {
		b->no_memory = true;
		return;
	}
	b->pcs = pcs;
	b->pcs[b->pc_count++] = pc;
}

static int compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static int compare_operands(const void *a, const void *b)
{
	const struct operand_entry *x = a, *y = b;
	if (x->key != y->key)
		return x->key > y->key ? 1 : -1;
	return (x->value > y->value) - (x->value < y->value);
}

static size_t sort_numbers(uint64_t *numbers, size_t count)
{
	if (!count)
		return 0;
	qsort(numbers, count, sizeof(*numbers), compare_numbers);
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (!kept || numbers[kept - 1] != numbers[i])
			numbers[kept++] = numbers[i];
	return kept;
}

static size_t sort_operands(struct operand_entry *operands, size_t count)
{
	if (!count)
		return 0;
	qsort(operands, count, sizeof(*operands), compare_operands);
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (!kept || compare_operands(&operands[kept - 1], &operands[i]) != 0)
			operands[kept++] = operands[i];
	return kept;
}

/* Runs of words with the same flags: how many words were passed over, how many these are, flags, rows. */
static uint8_t *put_words(uint8_t *to, const struct page_words *p)
{
	/* The row is foretold as if the words of a page were written one after the other at the same distance. */
	int64_t before = 0, distance = 0;
	size_t end = 0;
	for (size_t at = 0; at < WORDS_PER_PAGE;) {
		uint8_t flags = p->flags[at];
		if (!flags) {
			uint64_t eight = 1;
			if (at % 8 == 0)
				memcpy(&eight, &p->flags[at], sizeof(eight));
			at += eight ? 1 : 8;
			continue;
		}
		size_t first = at;
		while (at < WORDS_PER_PAGE && p->flags[at] == flags)
			at++;
		to = put_varint(to, first - end);
		to = put_varint(to, at - first);
		*to++ = flags;
		for (size_t i = first; flags & WORD_WRITTEN && i < at; i++) {
			int64_t row = p->row[i];
			to = put_varint(to, zigzag((uint64_t)(row - before - distance)));
			distance = row - before;
			before = row;
		}
		end = at;
	}
	return to;
}

static uint8_t *put_pages(uint8_t *to, const struct index_builder *b)
{
	/* Pairs of page and index are sorted, not the pages themselves. */
	struct operand_entry *order = malloc((b->page_count + 1) * sizeof(*order));
	uint8_t *one = malloc(WORDS_PER_PAGE * (3 + NUMBER_MAX));
	if (order && one) {
		for (size_t i = 0; i < b->page_count; i++)
			order[i] = (struct operand_entry){page_numbered(b, i)->page, i};
		qsort(order, b->page_count, sizeof(*order), compare_operands);
		to = put_varint(to, b->page_count);
		uint64_t before = 0;
		for (size_t i = 0; i < b->page_count; i++) {
			size_t size = (size_t)(put_words(one, page_numbered(b, order[i].value)) - one);
			to = put_varint(to, order[i].key - before);
			to = put_varint(to, size);
			memcpy(to, one, size);
			to += size;
			before = order[i].key;
		}
	} else {
		to = NULL;
	}
	free(order);
	free(one);
	return to;
}

static uint8_t *put_index(uint8_t *to, struct index_builder *b)
{
	to = put_pages(to, b);
	if (!to)
		return NULL;
	b->pc_count = sort_numbers(b->pcs, b->pc_count);
	to = put_varint(to, b->pc_count);
	uint64_t before = 0;
	for (size_t i = 0; i < b->pc_count; i++) {
		to = put_varint(to, b->pcs[i] - before);
		before = b->pcs[i];
	}
	b->operand_count = sort_operands(b->operands, b->operand_count);
	to = put_varint(to, b->operand_count);
	struct operand_entry last = {0, 0};
	for (size_t i = 0; i < b->operand_count; i++) {
		struct operand_entry operand = b->operands[i];
		to = put_varint(to, operand.key - last.key);
		to = put_varint(to, operand.value - (operand.key == last.key ? last.value : 0));
		last = operand;
	}
	uint64_t kinds = 0;
	for (size_t i = 0; i < 256; i++)
		kinds += b->kind_count[i] > 0;
	to = put_varint(to, kinds);
	for (size_t i = 0; i < 256; i++)
		if (b->kind_count[i]) {
			to = put_varint(to, i);
			to = put_varint(to, b->kind_count[i]);
		}
	return to;
}

/* Most bytes of an index: each word in a run of its own. */
static size_t index_bytes_max(const struct index_builder *b)
{
	return b->page_count * (WORDS_PER_PAGE * (2 + 2 + 1 + 5) + 2 * NUMBER_MAX) + (b->pc_count + 2 * b->operand_count) * NUMBER_MAX +
	       256 * 2 * NUMBER_MAX + 4 * NUMBER_MAX;
}

bool index_finish(struct index_builder *b, uint8_t **index, size_t *index_bytes)
{
	*index = NULL;
	*index_bytes = 0;
	if (b->no_memory)
		return false;
	if (b->too_many)
		return true;
	size_t bytes_max = index_bytes_max(b);
	uint8_t *out = malloc(bytes_max);
	uint8_t *end = out ? put_index(out, b) : NULL;
	if (!end) {
		free(out);
		return false;
	}
	*index = out;
	*index_bytes = (size_t)(end - out);
	assert(*index_bytes <= bytes_max);
	return true;
}

/* -- reading -- */

struct reader {
	const uint8_t *at, *end;
	bool damaged;
};

static uint64_t take_varint(struct reader *r)
{
	uint64_t x = 0;
	for (uint32_t shift = 0; shift < 64 && r->at < r->end; shift += 7) {
		uint8_t byte = *r->at++;
		x |= (uint64_t)(byte & 127) << shift;
		if (!(byte & 128))
			return x;
	}
	r->damaged = true;
	return 0;
}

/* How many there are of something that takes at least a byte each. */
static size_t take_count(struct reader *r)
{
	uint64_t count = take_varint(r);
	if (count > (uint64_t)(r->end - r->at)) {
		r->damaged = true;
		return 0;
	}
	return (size_t)count;
}

/* No index is made of more pages. Without this, 16 MB could claim words that take thousands of times as much. */
static size_t take_page_count(struct reader *r)
{
	size_t count = take_count(r);
	if (count > PAGES_MAX) {
		r->damaged = true;
		return 0;
	}
	return count;
}

/* The number of page `i`, after that of the page before. Numbers ascend. */
static uint64_t take_page(struct reader *r, size_t i, uint64_t before)
{
	uint64_t page = before + take_varint(r);
	r->damaged |= i > 0 && page <= before;
	return page;
}

/* Walks the words of one page; each run is handed on by its first word, length, flags and rows (of written ones). */
typedef bool take_word(void *context, uint64_t word, uint8_t flags, uint32_t row);

static void take_words(struct reader *r, uint64_t page, size_t size, take_word *take, void *context)
{
	struct reader words = {r->at, r->at + size, false};
	r->at += size;
	int64_t before = 0, distance = 0;
	uint64_t at = 0;
	while (words.at < words.end && !words.damaged) {
		uint64_t gap = take_varint(&words), length = take_varint(&words);
		if (words.at == words.end || gap > WORDS_PER_PAGE || length > WORDS_PER_PAGE || at + gap + length > WORDS_PER_PAGE ||
		    length == 0) {
			words.damaged = true;
			break;
		}
		uint8_t flags = *words.at++;
		if (flags == 0 || flags & ~WORD_FLAGS) {
			words.damaged = true;
			break;
		}
		at += gap;
		for (uint64_t end = at + length; at < end && !words.damaged; at++) {
			int64_t row = 0;
			if (flags & WORD_WRITTEN) {
				/* As an unsigned sum, for what is damaged may overflow. */
				row = (int64_t)((uint64_t)before + (uint64_t)distance + unzigzag(take_varint(&words)));
				words.damaged |= row < 0 || row >= CODEC_EVENTS_MAX;
				distance = words.damaged ? 0 : row - before;
				before = row;
			}
			if (!words.damaged && !take(context, page * WORDS_PER_PAGE + at, flags, (uint32_t)row))
				return;
		}
	}
	r->damaged |= words.damaged;
}

struct word_list {
	struct word_entry *words;
	size_t count;
};

static bool list_word(void *context, uint64_t word, uint8_t flags, uint32_t row)
{
	struct word_list *list = context;
	if (list->words)
		list->words[list->count] = (struct word_entry){word, row, flags};
	list->count++;
	return true;
}

bool read_index(const uint8_t *index, size_t index_bytes, struct index_counts *counts, struct word_entry *words, uint64_t *pcs,
		struct operand_entry *operands, struct kind_entry *kinds)
{
	struct reader r = {index, index + index_bytes, false};
	struct word_list list = {words, 0};
	size_t pages = take_page_count(&r);
	uint64_t page = 0;
	for (size_t i = 0; i < pages && !r.damaged; i++) {
		page = take_page(&r, i, page);
		size_t size = take_count(&r);
		if (!r.damaged)
			take_words(&r, page, size, list_word, &list);
	}
	counts->words = list.count;
	counts->pcs = take_count(&r);
	uint64_t pc = 0;
	for (size_t i = 0; i < counts->pcs && !r.damaged; i++) {
		pc += take_varint(&r);
		if (pcs)
			pcs[i] = pc;
	}
	counts->operands = take_count(&r);
	struct operand_entry operand = {0, 0};
	for (size_t i = 0; i < counts->operands && !r.damaged; i++) {
		uint64_t more = take_varint(&r);
		operand.value = take_varint(&r) + (more ? 0 : operand.value);
		operand.key += more;
		if (operands)
			operands[i] = operand;
	}
	counts->kinds = take_count(&r);
	for (size_t i = 0; i < counts->kinds && !r.damaged; i++) {
		struct kind_entry kind = {take_varint(&r), 0};
		kind.count = take_varint(&r);
		if (kinds)
			kinds[i] = kind;
	}
	return !r.damaged && r.at == r.end;
}

bool read_pages(const uint8_t *index, size_t index_bytes, size_t *count, uint64_t *pages)
{
	struct reader r = {index, index + index_bytes, false};
	*count = take_page_count(&r);
	uint64_t page = 0;
	for (size_t i = 0; i < *count && !r.damaged; i++) {
		page = take_page(&r, i, page);
		size_t size = take_count(&r);
		r.at += size;
		if (pages)
			pages[i] = page;
	}
	return !r.damaged;
}

struct word_search {
	uint64_t first, last;
	uint8_t flags;
	int64_t row;
};

static bool search_word(void *context, uint64_t word, uint8_t flags, uint32_t row)
{
	struct word_search *search = context;
	if (word > search->last)
		return false;
	if (word >= search->first) {
		search->flags |= flags;
		if (flags & WORD_WRITTEN && row > search->row)
			search->row = row;
	}
	return true;
}

bool find_words(const uint8_t *index, size_t index_bytes, uint64_t first, uint64_t last, uint8_t *flags, int64_t *row)
{
	struct reader r = {index, index + index_bytes, false};
	struct word_search search = {first, last, 0, -1};
	size_t pages = take_page_count(&r);
	uint64_t page = 0;
	for (size_t i = 0; i < pages && !r.damaged && page <= last / WORDS_PER_PAGE; i++) {
		page = take_page(&r, i, page);
		size_t size = take_count(&r);
		if (r.damaged)
			break;
		if (page >= first / WORDS_PER_PAGE && page <= last / WORDS_PER_PAGE)
			take_words(&r, page, size, search_word, &search);
		else
			r.at += size;
	}
	*flags = search.flags;
	*row = search.row;
	return !r.damaged;
}
