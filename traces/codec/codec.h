/* Coding events into four streams and back: docs/tape-format.md, section "Streams". */
#ifndef RACETAPE_CODEC_H
#define RACETAPE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Column codecs that keep streams. Only the later is written. */
enum codec { CODEC_3 = 3, CODEC_4 = 4 };
/* As they stand in codec 4; in codec 3 the last two are the other way round. */
enum { STREAM_CONTROL, STREAM_ADDR, STREAM_SITE, STREAM_VALUE, STREAM_COUNT };
enum { WIDE_COUNT = 5, NARROW_COUNT = 4, COLUMN_COUNT = WIDE_COUNT + NARROW_COUNT };
enum { CODEC_EVENTS_MAX = 1 << 18, CODEC_PAGE_BYTES = 4096 };

/* An event as the machine's tap keeps it. */
struct row {
	uint64_t step, pc, addr, phys, value;
	uint32_t meta; /* kind, cpu, size, info */
	uint32_t zero;
};

/* The same as columns: step, pc, addr, phys, value; kind, cpu, size, info. */
struct columns {
	uint64_t *wide[WIDE_COUNT];
	uint8_t *narrow[NARROW_COUNT];
};

/* Bytes that `coded` of encode_events must have room for. */
size_t encoded_bytes_max(size_t count);
/* What an index says of an 8-byte word. */
enum { WORD_READ = 1, WORD_WRITTEN = 2, WORD_NEGATIVE = 4, WORD_ISSUED = 8, WORD_FLAGS = 15 };

/* Numbers that the index needs to know of the event schema: which kinds and bits of info mean what. */
struct index_rules {
	uint8_t role[256]; /* by kind: enum index_role */
	uint8_t drained, device; /* bits of info of a load or store */
};
enum index_role { ROLE_NONE, ROLE_LOAD, ROLE_STORE, ROLE_DRAIN, ROLE_WALK, ROLE_AD_UPDATE, ROLE_TRACE };

/* An index of the events (docs/tape-format.md, section "Index"), in memory that the caller frees; NULL if they touch so many pages
 * that it would be no gain. */
struct index {
	uint8_t *data;
	size_t size;
};

/* Writes the streams one behind the other, and with `rules` makes the index, too. Returns false if memory is short. */
bool encode_events(const struct row *rows, size_t count, uint8_t *coded, uint32_t stream_bytes[STREAM_COUNT],
		   const struct index_rules *rules, struct index *index);

enum decode_status { DECODE_OK, DECODE_DAMAGED, DECODE_NO_MEMORY };
/* `coded` has as many bytes as the streams together. Writes `count` elements of every column if all is well. With `prefix` there may be
 * more events than these, which are the first; else the streams must hold exactly so many. */
enum decode_status decode_events(enum codec codec, const uint8_t *coded, const uint32_t stream_bytes[STREAM_COUNT], size_t count,
				 bool prefix, const struct columns *out);

/* An index may claim anything: all of these return false if it is damaged. */
struct word_entry {
	uint64_t word; /* phys / 8 */
	uint32_t row;  /* of the last visible write, if it has WORD_WRITTEN */
	uint8_t flags;
};
struct index_counts {
	size_t words, pcs, operands, kinds;
};
struct operand_entry {
	uint64_t key; /* 2 * identifier, plus 1 for the second operand */
	uint64_t value;
};
struct kind_entry {
	uint64_t kind, count;
};
/* Any of the arrays may be NULL; each has room for as many as a call with NULL counted. */
bool read_index(const uint8_t *index, size_t index_bytes, struct index_counts *counts, struct word_entry *words, uint64_t *pcs,
		struct operand_entry *operands, struct kind_entry *kinds);
/* The numbers of the pages that have words, ascending; with NULL only counts them. */
bool read_pages(const uint8_t *index, size_t index_bytes, size_t *count, uint64_t *pages);
/* Ors the flags of words `first` to `last` and finds the last visible write to one of them (-1: none). */
bool find_words(const uint8_t *index, size_t index_bytes, uint64_t first, uint64_t last, uint8_t *flags, int64_t *row);

/* For each page the number of the first that is equal. Returns false if memory is short. */
bool same_pages(const uint8_t *pages, uint32_t count, uint32_t *first);

#endif
