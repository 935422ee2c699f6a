/* Decoding, and the cache of decoded instructions keyed by physical address. */
#ifndef RACETAPE_DECODE_H
#define RACETAPE_DECODE_H

#include "op.h"

enum { INSTRUCTION_SIZE_MAX = 15, DECODE_MAPS = 3 };

/* [map][opcode][ModRM.reg] -> row + 1, 0 if there is none. */
struct decode_table {
	uint16_t row[DECODE_MAPS][256][8];
};

struct code_page {
	uint32_t slot[PAGE_SIZE];	   /* op number + 1 of the instruction that starts at this byte */
	uint64_t covered[PAGE_SIZE / 64]; /* bytes that belong to a decoded instruction (may be too many) */
};

enum { OP_POOL_COUNT = 1 << 17, CODE_PAGE_MAX = 1024 };

struct decode_cache {
	struct decode_table table;
	struct op *ops; /* [OP_POOL_COUNT] */
	uint32_t op_count;
	uint32_t page_count;
	uint16_t *page_number;			/* [RAM pages] code page + 1, by frame */
	struct code_page *pages[CODE_PAGE_MAX];
	uint32_t page_frame[CODE_PAGE_MAX];
	struct op straddling; /* an instruction that crosses a page is decoded anew each time */
};

enum decode_result { DECODE_OK, DECODE_SHORT, DECODE_INVALID };

void decode_table_init(struct decode_table *table);
/* Decodes the instruction at the front of `bytes`. DECODE_SHORT: more than `available` bytes are needed. On
 * DECODE_INVALID the op raises #UD (#GP if it is longer than 15 bytes) when executed. */
enum decode_result decode_bytes(const struct decode_table *table, const uint8_t *bytes, size_t available,
				bool code_32bit, struct op *op);

struct decode_cache *decode_cache_create(uint32_t page_count);
void decode_cache_destroy(struct decode_cache *cache);
/* The instruction at c's rip, translating and decoding as needed; NULL with a fault in c->fault. */
const struct op *decode_fetch(struct cpu *c);
/* The same without any effect the guest or the tape could see; NULL if fetching would fault. */
const struct op *decode_peek(struct cpu *c);
/* Bytes [phys, phys + size) within one page were written. */
void decode_invalidate(struct machine *m, uint64_t phys, uint32_t size);

#endif
