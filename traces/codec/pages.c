#include <stdlib.h>
#include <string.h>

#include "codec.h"

/* Four lanes, or each multiplication would wait for the one before. Whatever it gives, pages are compared. */
static uint64_t page_hash(const uint8_t *page)
{
	enum { LANES = 4 };
	const uint64_t factor = UINT64_C(0x9E3779B97F4A7C15);
	uint64_t lane[LANES] = {1, 2, 3, 4}, hash = 0;
	for (int at = 0; at < CODEC_PAGE_BYTES; at += LANES * 8) {
		for (int i = 0; i < LANES; i++) {
			uint64_t x;
			memcpy(&x, page + at + 8 * i, sizeof(x));
			lane[i] = (lane[i] ^ x) * factor;
			lane[i] ^= lane[i] >> 32;
		}
	}
	for (int i = 0; i < LANES; i++)
		hash = (hash ^ lane[i]) * factor;
	return hash ^ hash >> 32;
}

bool same_pages(const uint8_t *pages, uint32_t count, uint32_t *first)
{
	struct slot {
		uint64_t hash;
		uint32_t page;
		bool used;
	};
	size_t slot_count = 1;
	while (slot_count < 2 * (size_t)count)
		slot_count *= 2;
	struct slot *slots = calloc(slot_count, sizeof(*slots));
	if (!slots)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *page = pages + (size_t)i * CODEC_PAGE_BYTES;
		uint64_t hash = page_hash(page);
		size_t at = hash & (slot_count - 1);
		while (slots[at].used && (slots[at].hash != hash ||
					  memcmp(pages + (size_t)slots[at].page * CODEC_PAGE_BYTES, page, CODEC_PAGE_BYTES) != 0))
			at = (at + 1) & (slot_count - 1);
		if (!slots[at].used)
			slots[at] = (struct slot){.hash = hash, .page = i, .used = true};
		first[i] = slots[at].page;
	}
	free(slots);
	return true;
}
