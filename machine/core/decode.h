/* Decoding, and the cache of decoded instructions keyed by physical address. */
#ifndef RACETAPE_DECODE_H
#define RACETAPE_DECODE_H

#include "op.h"

enum { INSTRUCTION_SIZE_MAX = 15 };

/* [64-bit code][map][opcode][ModRM.reg] -> row + 1, 0 if there is none. */
struct decode_table {
	uint16_t row[2][MAP_COUNT][256][8];
};

/* The decoded instructions of one page of RAM, read as code of one size. */
struct code_page {
	uint32_t slot[PAGE_SIZE];	   /* number of the op that starts at this byte, 0 if none does */
	uint64_t covered[PAGE_SIZE / 64]; /* bytes that belong to a decoded instruction (may be too many) */
	uint32_t frame;
	uint16_t next; /* page + 1 of the same frame in another size */
	uint8_t bits;
};

enum { OP_POOL_COUNT = 1 << 17, CODE_PAGE_MAX = 1024 };

struct decode_cache {
	struct decode_table table;
	struct op *ops; /* [OP_POOL_COUNT], blocks one after the other; number 0 is unused */
	uint32_t op_count;
	uint32_t page_count;
	uint16_t *page_number;			/* [RAM pages] code page + 1, by frame */
	struct code_page *pages[CODE_PAGE_MAX]; /* the first exists always */
	struct op straddling[2]; /* an instruction that crosses a page is decoded anew each time; and its end */
};

enum decode_result { DECODE_OK, DECODE_SHORT, DECODE_INVALID };

void decode_table_init(struct decode_table *table);
/* Decodes the instruction at the front of `bytes`. DECODE_SHORT: more than `available` bytes are needed. On
 * DECODE_INVALID the op raises #UD (#GP if it is longer than 15 bytes) when executed. */
enum decode_result decode_bytes(const struct decode_table *table, const uint8_t *bytes, size_t available,
				uint32_t bits, struct op *op);

struct decode_cache *decode_cache_create(uint32_t page_count);
void decode_cache_destroy(struct decode_cache *cache);
/* The cached instruction at a linear address, or NULL if only decode_fetch knows. */
ALWAYS_INLINE const struct op *fetch_cached(const struct cpu *c, uint64_t linear)
{
	uint32_t slot = linear >> PAGE_SHIFT & (FETCH_SLOTS - 1);
	if (unlikely(c->fetch_tag[slot] != (linear & ~(uint64_t)(PAGE_SIZE - 1))))
		return NULL;
	uint32_t number = c->fetch_code[slot]->slot[linear & (PAGE_SIZE - 1)];
	return likely(number) ? &c->machine->code->ops[number] : NULL;
}

/* The instruction at c's rip, translating and decoding as needed; NULL with a fault in c->fault. */
const struct op *decode_fetch(struct cpu *c);
/* The same without any effect the guest or the tape could see; NULL if fetching would fault. */
const struct op *decode_peek(struct cpu *c);
/* Bytes [phys, phys + size) within one page were written. */
void decode_invalidate(struct machine *m, uint64_t phys, uint32_t size);

#endif
