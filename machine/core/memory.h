/* RAM: flat host memory, with one flag byte a page for snapshots, hashing and decoded code. */
#ifndef RACETAPE_MEMORY_H
#define RACETAPE_MEMORY_H

#include <string.h>

#include "machine.h"

bool memory_init(struct memory *mem, uint64_t size_bytes);
void memory_deinit(struct memory *mem);
/* To be called before a page is written; cheap if it was written before since the last snapshot and hash. */
void memory_mark_written(struct memory *mem, uint32_t frame);
/* Drops the flag bit from every page listed and empties the list: after a snapshot. */
void memory_forget_unsaved(struct memory *mem);
/* Sum over pages of a hash of (frame number, content); an all-zero page counts 0, so untouched RAM costs nothing. */
uint64_t memory_hash(struct memory *mem);
/* Lists the frames that are not all zero (their number is returned), and those of them that were written since the last
 * call, or all. Both lists have room for all frames. Direct stores must be withdrawn afterwards. */
uint32_t memory_take_pages(struct memory *mem, bool all, uint32_t *frames, uint32_t *taken, uint32_t *taken_count);
/* Writes `size` bytes (any number) at `phys`, within RAM, on behalf of whoever: decoded code is kept coherent. */
void memory_write(struct machine *m, uint64_t phys, const void *data, size_t size);

/* The same for 1 to 8 bytes within one page. */
void memory_write_small(struct machine *m, uint64_t phys, uint64_t value, uint32_t size);

ALWAYS_INLINE bool memory_contains(const struct memory *mem, uint64_t phys, uint64_t size)
{
	return phys < mem->size_bytes && size <= mem->size_bytes - phys;
}

/* Little-endian value of 1..8 bytes at `p`. The host is little-endian too (checked at compile time in memory.c). */
ALWAYS_INLINE uint64_t bytes_load(const uint8_t *p, uint32_t size)
{
	uint64_t value = 0;
	memcpy(&value, p, size);
	return value;
}

ALWAYS_INLINE void bytes_store(uint8_t *p, uint32_t size, uint64_t value)
{
	memcpy(p, &value, size);
}

/* The same for sizes that the compiler does not know: copying some number of bytes is a call. */
ALWAYS_INLINE uint64_t bytes_load_any(const uint8_t *p, uint32_t size)
{
	switch (size) {
	case 1: return bytes_load(p, 1);
	case 2: return bytes_load(p, 2);
	case 4: return bytes_load(p, 4);
	case 8: return bytes_load(p, 8);
	default: return bytes_load(p, size);
	}
}

ALWAYS_INLINE void bytes_store_any(uint8_t *p, uint32_t size, uint64_t value)
{
	switch (size) {
	case 1: bytes_store(p, 1, value); break;
	case 2: bytes_store(p, 2, value); break;
	case 4: bytes_store(p, 4, value); break;
	case 8: bytes_store(p, 8, value); break;
	default: bytes_store(p, size, value);
	}
}

/* 64-bit hash of bytes; not cryptographic. */
uint64_t hash_bytes(uint64_t seed, const void *data, size_t size);

#endif
