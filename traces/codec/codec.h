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
/* Writes the streams one behind the other. Returns false if memory is short. */
bool encode_events(const struct row *rows, size_t count, uint8_t *coded, uint32_t stream_bytes[STREAM_COUNT]);

enum decode_status { DECODE_OK, DECODE_DAMAGED, DECODE_NO_MEMORY };
/* `coded` has as many bytes as the streams together. Writes `count` elements of every column if all is well. */
enum decode_status decode_events(enum codec codec, const uint8_t *coded, const uint32_t stream_bytes[STREAM_COUNT], size_t count,
				 const struct columns *out);

/* For each page the number of the first that is equal. Returns false if memory is short. */
bool same_pages(const uint8_t *pages, uint32_t count, uint32_t *first);

#endif
