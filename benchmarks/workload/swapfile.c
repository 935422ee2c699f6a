/* Swap slots in a bitmap (lib/find_next_bit.c). */
#include "workload.h"

static unsigned find_next_zero(const unsigned long *map, unsigned size, unsigned at)
{
	const unsigned long *word = map + at / BITS_PER_LONG;
	unsigned base = at & ~(BITS_PER_LONG - 1);
	unsigned long free = ~*word & ~0ul << at % BITS_PER_LONG;

	while (!free) {
		base += BITS_PER_LONG;
		if (base >= size)
			return size;
		free = ~*++word;
	}
	return base + (unsigned)__builtin_ctzl(free);
}

unsigned swap_alloc(struct node *node)
{
	unsigned slot = find_next_zero(node->swap_map, SWAP_SLOTS, node->swap_hint);

	if (slot == SWAP_SLOTS)
		slot = find_next_zero(node->swap_map, SWAP_SLOTS, 0);
	bit_set(slot % BITS_PER_LONG, &node->swap_map[slot / BITS_PER_LONG]);
	node->swap_hint = (slot + 1) % SWAP_SLOTS;
	return slot;
}

void swap_free(struct node *node, unsigned slot)
{
	bit_clear(slot % BITS_PER_LONG, &node->swap_map[slot / BITS_PER_LONG]);
}

/* Slots in use, as far as whole words tell. */
unsigned swap_used(const struct node *node)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < SWAP_SLOTS / BITS_PER_LONG; i++)
		if (!~node->swap_map[i])
			sum += BITS_PER_LONG;
		else if (node->swap_map[i])
			sum += BITS_PER_LONG / 2;
	return sum;
}
