#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "decode.h"
#include "snapshot.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "guest values are copied as they are");

bool memory_init(struct memory *mem, uint64_t size_bytes)
{
	assert(size_bytes > 0 && size_bytes % PAGE_SIZE == 0);
	uint32_t pages = (uint32_t)(size_bytes / PAGE_SIZE);
	*mem = (struct memory){.size_bytes = size_bytes, .page_count = pages};
	/* Anonymous memory is zero and costs nothing until touched. */
	void *ram = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	mem->ram = ram == MAP_FAILED ? NULL : ram;
	mem->flags = calloc(pages, 1);
	mem->unsaved = malloc(pages * sizeof(uint32_t));
	mem->unhashed = malloc(pages * sizeof(uint32_t));
	mem->page_hash = calloc(pages, sizeof(uint64_t));
	mem->saved = page_tree_create(pages);
	if (mem->ram && mem->flags && mem->unsaved && mem->unhashed && mem->page_hash && mem->saved)
		return true;
	memory_deinit(mem);
	return false;
}

void memory_deinit(struct memory *mem)
{
	if (mem->ram)
		munmap(mem->ram, mem->size_bytes);
	free(mem->flags);
	free(mem->unsaved);
	free(mem->unhashed);
	free(mem->page_hash);
	page_tree_destroy(mem->saved);
	*mem = (struct memory){0};
}

void memory_mark_written(struct memory *mem, uint32_t frame)
{
	assert(frame < mem->page_count);
	uint8_t flags = mem->flags[frame];
	if (!(flags & PAGE_UNSAVED))
		mem->unsaved[mem->unsaved_count++] = frame;
	if (!(flags & PAGE_UNHASHED))
		mem->unhashed[mem->unhashed_count++] = frame;
	mem->flags[frame] = flags | PAGE_NOTICED | PAGE_WRITTEN;
}

void memory_forget_unsaved(struct memory *mem)
{
	for (uint32_t i = 0; i < mem->unsaved_count; i++)
		mem->flags[mem->unsaved[i]] &= (uint8_t)~PAGE_UNSAVED;
	mem->unsaved_count = 0;
}

void memory_write_small(struct machine *m, uint64_t phys, uint64_t value, uint32_t size)
{
	struct memory *mem = &m->memory;
	uint32_t frame = (uint32_t)(phys >> PAGE_SHIFT);
	assert(memory_contains(mem, phys, size) && (phys & (PAGE_SIZE - 1)) + size <= PAGE_SIZE);
	if (unlikely((mem->flags[frame] & PAGE_DIRECT_MASK) != PAGE_DIRECT)) {
		memory_write(m, phys, &value, size);
		return;
	}
	bytes_store_any(mem->ram + phys, size, value);
}

void memory_write(struct machine *m, uint64_t phys, const void *data, size_t size)
{
	struct memory *mem = &m->memory;
	assert(memory_contains(mem, phys, size));
	const uint8_t *from = data;
	while (size) {
		uint32_t frame = (uint32_t)(phys >> PAGE_SHIFT);
		uint32_t offset = (uint32_t)(phys & (PAGE_SIZE - 1));
		size_t part = PAGE_SIZE - offset < size ? PAGE_SIZE - offset : size;
		memory_mark_written(mem, frame);
		memcpy(mem->ram + phys, from, part);
		if (mem->flags[frame] & PAGE_CODE)
			decode_invalidate(m, phys, (uint32_t)part);
		from += part;
		phys += part;
		size -= part;
	}
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)(a ^ UINT64_C(0x9E3779B97F4A7C15)) * (b ^ UINT64_C(0xD6E8FEB86659FD93));
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t size)
{
	/* Four independent multiply-and-fold lanes; the shape of wyhash and its kin. */
	const uint8_t *p = data;
	uint64_t lane[4] = {mix(seed, 1), mix(seed, 2), mix(seed, 3), mix(seed, size)};
	size_t left = size;
	for (; left >= 64; left -= 64, p += 64)
		for (int i = 0; i < 4; i++)
			lane[i] = mix(bytes_load(p + 16 * i, 8) ^ lane[i], bytes_load(p + 16 * i + 8, 8));
	uint64_t h = mix(mix(lane[0], lane[1]), mix(lane[2], lane[3]));
	for (; left >= 8; left -= 8, p += 8)
		h = mix(h ^ bytes_load(p, 8), size);
	if (left)
		h = mix(h ^ bytes_load(p, (uint32_t)left), left);
	return h;
}

static bool page_is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

uint64_t memory_hash(struct memory *mem)
{
	for (uint32_t i = 0; i < mem->unhashed_count; i++) {
		uint32_t frame = mem->unhashed[i];
		const uint8_t *page = mem->ram + (uint64_t)frame * PAGE_SIZE;
		uint64_t hash = page_is_zero(page) ? 0 : hash_bytes(frame, page, PAGE_SIZE);
		mem->hash_sum += hash - mem->page_hash[frame];
		mem->page_hash[frame] = hash;
		mem->flags[frame] &= (uint8_t)~PAGE_UNHASHED;
	}
	mem->unhashed_count = 0;
	return mem->hash_sum;
}

uint32_t memory_take_pages(struct memory *mem, bool all, uint32_t *frames, uint32_t *taken, uint32_t *taken_count)
{
	uint32_t count = 0, chosen = 0;
	for (uint32_t frame = 0; frame < mem->page_count; frame++) {
		uint8_t flags = mem->flags[frame];
		if (!(flags & PAGE_WRITTEN))
			continue;
		mem->flags[frame] = flags & (uint8_t)~PAGE_UNTAKEN;
		if (page_is_zero(mem->ram + (uint64_t)frame * PAGE_SIZE))
			continue;
		frames[count++] = frame;
		if (all || flags & PAGE_UNTAKEN)
			taken[chosen++] = frame;
	}
	*taken_count = chosen;
	return count;
}
