/* An address space: page tables walked and filled by software (mm/memory.c, mm/rmap.c). They are never loaded into CR3. */
#include "workload.h"

enum { PTE_PRESENT = 1, PTE_RW = 2, PTE_USER = 4, PTE_YOUNG = 0x20, PTE_DIRTY = 0x40, PTE_YOUNG_BIT = 5 };
enum {
	SWAP_SHIFT = 8, /* a swapped-out entry is not present; slot + 1 from this bit on */
	COPY_BYTES = 256,
};

static unsigned long *table_alloc(struct node *node)
{
	struct page *page = page_alloc(node, 0);
	unsigned long *table = phys_to_virt(page_to_pfn(&node->zone, page) << PAGE_SHIFT);

	for (unsigned i = 0; i < TABLE_ENTRIES; i++)
		table[i] = 0;
	zone_stat_mod(&node->zone, NR_TABLES, 1);
	return table;
}

/* The last-level entry of `address`, or NULL. */
unsigned long *table_walk(struct node *node, unsigned long address, bool create)
{
	if (!node->pgd)
		node->pgd = table_alloc(node);
	unsigned long *table = node->pgd;

#pragma GCC unroll 4
	for (unsigned level = TABLE_LEVELS - 1; level > 0; level--) {
		unsigned shift = PAGE_SHIFT + level * TABLE_SHIFT;
		unsigned long *entry = &table[address >> shift & (TABLE_ENTRIES - 1)];

		if (!(*entry & PTE_PRESENT)) {
			if (!create)
				return NULL;
			unsigned long phys = (unsigned long)table_alloc(node) - PAGE_OFFSET;
			*entry = phys | PTE_PRESENT | PTE_RW | PTE_USER | PTE_YOUNG;
		}
		table = phys_to_virt(*entry & ~(PAGE_SIZE - 1));
	}
	return &table[address >> PAGE_SHIFT & (TABLE_ENTRIES - 1)];
}

/* The first lines of a page, unrolled as Linux's copy_page without string instructions; they stand for all of it. */
static void copy_page_start(const struct node *node, unsigned long *to, unsigned long stamp)
{
	const unsigned long *from = node->pgd;

#pragma GCC unroll 8
	for (unsigned i = 0; i < COPY_BYTES / sizeof(long); i++)
		to[i] = from[i];
	to[0] ^= stamp;
}

static void map_new(struct node *node, unsigned long address, unsigned long *pte, bool write)
{
	struct zone *zone = &node->zone;
	struct page *page = page_alloc(node, 0);
	unsigned long old = *pte;

	if (old) {
		swap_free(node, (unsigned)(old >> SWAP_SHIFT) - 1);
		zone_stat_mod(zone, NR_SWAPPED, -1);
	}
	copy_page_start(node, phys_to_virt(page_to_pfn(zone, page) << PAGE_SHIFT), old);
	page->mapping = node;
	page->index = address >> PAGE_SHIFT;
	page->mapcount = 0;
	*pte = page_to_pfn(zone, page) << PAGE_SHIFT | PTE_PRESENT | PTE_USER | PTE_YOUNG |
	       (write ? PTE_RW | PTE_DIRTY : 0);
	zone_stat_mod(zone, NR_MAPPED, 1);
	lru_add(node, page);
}

void fault(struct node *node, unsigned long address, bool write)
{
	unsigned long *pte = table_walk(node, address, true);
	unsigned long entry = *pte;

	zone_stat_mod(&node->zone, NR_FAULTS, 1);
	if (!(entry & PTE_PRESENT)) {
		map_new(node, address, pte, write);
		return;
	}
	*pte = entry | PTE_YOUNG | (write ? PTE_RW | PTE_DIRTY : 0);
	struct page *page = pfn_to_page(&node->zone, entry >> PAGE_SHIFT);
	if (write && !bit_test(PG_DIRTY, &page->flags))
		bit_set(PG_DIRTY, &page->flags);
	lru_activate(&node->zone, page);
}

bool test_and_clear_young(struct node *node, struct page *page)
{
	struct node *owner = page->mapping;
	unsigned long *pte = table_walk(owner, page->index << PAGE_SHIFT, false);

	if (!pte || *pte >> PAGE_SHIFT != page_to_pfn(&node->zone, page))
		return false;
	return bit_test_and_clear(PTE_YOUNG_BIT, pte);
}

/* Takes the page out of its address space; a dirty one goes to swap. */
void unmap(struct node *node, struct page *page)
{
	unsigned long *pte = table_walk(page->mapping, page->index << PAGE_SHIFT, false);
	unsigned long entry = *pte;

	*pte = 0;
	if (entry & PTE_DIRTY || bit_test(PG_DIRTY, &page->flags)) {
		*pte = (unsigned long)(swap_alloc(node) + 1) << SWAP_SHIFT;
		zone_stat_mod(&node->zone, NR_SWAPPED, 1);
	}
	page->mapping = NULL;
	page->mapcount = -1;
	zone_stat_mod(&node->zone, NR_MAPPED, -1);
}
