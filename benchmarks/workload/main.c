/* What is run: a seeded mix of faults, higher-order blocks, scans and counter reads. */
#include "workload.h"

enum { OPERATIONS_PER_ROUND = 64, SCAN_PAGES = 64, LRU_PAGES = 48 };

struct node nodes[NODES_MAX] __attribute__((section(".hot"), aligned(64)));
static struct page mem_map[NODES_MAX][NODE_PAGES] __attribute__((aligned(4096)));

/* Takes or gives back a block of 2 to 16 pages. */
static void block_toggle(struct node *node, uint32_t random)
{
	unsigned slot = random % BLOCKS;

	if (node->block[slot]) {
		page_free(&node->zone, node->block[slot], node->block_order[slot]);
		node->block[slot] = NULL;
		return;
	}
	unsigned order = 1 + (random >> 8) % 4;
	node->block[slot] = page_alloc(node, order);
	node->block_order[slot] = (unsigned char)order;
}

static unsigned operation(struct node *node)
{
	uint32_t random = random_next(node);
	unsigned kind = random & 63;
	/* Half of the accesses go to an eighth of the pages. */
	unsigned span = random & 64 ? MM_PAGES / 8 : MM_PAGES;

	if (kind < 50) {
		fault(node, (unsigned long)((random >> 8) % span) << PAGE_SHIFT, random & 128);
		return 0;
	}
	if (kind < 58) {
		block_toggle(node, random >> 7);
		return 0;
	}
	if (kind < 59) {
		node->scan_at = (node->scan_at + SCAN_PAGES) % NODE_PAGES;
		return scan_movable(&node->zone, node->scan_at, SCAN_PAGES);
	}
	if (kind < 60)
		return swap_used(node);
	if (kind < 62)
		return lru_referenced(&node->zone, LRU_PAGES);
	unsigned sum = 0;
	for (unsigned i = 0; i < ITEM_COUNT; i++)
		sum += (unsigned)zone_stat_read(&node->zone, i);
	return sum;
}

unsigned checksum[NODES_MAX];

void workload(struct node *node, unsigned rounds)
{
	unsigned number = (unsigned)(node - nodes), sum = 0;

	node->seed = 0x9e3779b9 + number;
	zone_init(&node->zone, mem_map[number], NODE_FIRST_PFN + number * NODE_PAGES);
	for (unsigned i = 0; i < rounds * OPERATIONS_PER_ROUND; i++)
		sum = (sum << 5 | sum >> 27) ^ operation(node);
	checksum[number] = sum;
}
