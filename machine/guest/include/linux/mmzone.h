/* Zones (include/linux/mmzone.h, 2.6.39; FLATMEM, without ZONE_MOVABLE). */
#ifndef LINUX_MMZONE_H
#define LINUX_MMZONE_H

#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/mm_types.h>
#include <asm/atomic.h>
#include <asm/percpu.h>

#define MAX_ORDER_NR_PAGES (1UL << (MAX_ORDER - 1))
#define pageblock_nr_pages (1UL << pageblock_order)
#define PAGE_ALLOC_COSTLY_ORDER 3

enum migratetype {
	MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE,
	MIGRATE_PCPTYPES,
	MIGRATE_RESERVE = MIGRATE_PCPTYPES,
	MIGRATE_TYPES,
};

struct free_area {
	struct list_head free_list[MIGRATE_TYPES];
	unsigned long nr_free;
};

enum zone_stat_item {
	NR_FREE_PAGES,
	NR_LRU_BASE,
	NR_INACTIVE_ANON = NR_LRU_BASE, NR_ACTIVE_ANON, NR_INACTIVE_FILE, NR_ACTIVE_FILE, NR_UNEVICTABLE,
	NR_MLOCK,
	NR_ANON_PAGES,
	NR_FILE_MAPPED,
	NR_FILE_PAGES, NR_FILE_DIRTY, NR_WRITEBACK,
	NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE,
	NR_PAGETABLE,
	NR_KERNEL_STACK,
	NR_UNSTABLE_NFS, NR_BOUNCE, NR_VMSCAN_WRITE, NR_WRITEBACK_TEMP,
	NR_ISOLATED_ANON, NR_ISOLATED_FILE,
	NR_SHMEM,
	NR_DIRTIED, NR_WRITTEN,
	NR_ANON_TRANSPARENT_HUGEPAGES,
	NR_VM_ZONE_STAT_ITEMS,
};

#define LRU_BASE 0
#define LRU_ACTIVE 1
#define LRU_FILE 2

enum lru_list {
	LRU_INACTIVE_ANON = LRU_BASE,
	LRU_ACTIVE_ANON = LRU_BASE + LRU_ACTIVE,
	LRU_INACTIVE_FILE = LRU_BASE + LRU_FILE,
	LRU_ACTIVE_FILE = LRU_BASE + LRU_FILE + LRU_ACTIVE,
	LRU_UNEVICTABLE,
	NR_LRU_LISTS,
};

enum zone_watermarks { WMARK_MIN, WMARK_LOW, WMARK_HIGH, NR_WMARK };

#define min_wmark_pages(z) ((z)->watermark[WMARK_MIN])
#define low_wmark_pages(z) ((z)->watermark[WMARK_LOW])
#define high_wmark_pages(z) ((z)->watermark[WMARK_HIGH])

/* ISA's 16 MB, then on x86-64 what 32-bit devices reach. */
enum zone_type {
	ZONE_DMA,
#ifdef CONFIG_X86_64
	ZONE_DMA32,
#endif
	ZONE_NORMAL,
#ifdef CONFIG_HIGHMEM
	ZONE_HIGHMEM,
#endif
	MAX_NR_ZONES,
};

struct per_cpu_pages {
	int count, high, batch;
	struct list_head lists[MIGRATE_PCPTYPES];
};

struct per_cpu_pageset {
	struct per_cpu_pages pcp;
#ifdef CONFIG_SMP
	s8 stat_threshold;
	s8 vm_stat_diff[NR_VM_ZONE_STAT_ITEMS];
#endif
};

struct zone_lru {
	struct list_head list;
	unsigned long nr_saved_scan;
};

struct pglist_data;

struct zone {
	unsigned long watermark[NR_WMARK];
	unsigned long lowmem_reserve[MAX_NR_ZONES];
	struct per_cpu_pageset *pageset;	/* of CPU 0's section: use per_cpu_ptr */
	spinlock_t lock;
	struct free_area free_area[MAX_ORDER];
	u8 *pageblock_type;			/* one migratetype per pageblock of the zone */
	unsigned compact_considered;
	unsigned compact_defer_shift;

	/* A cache line of its own: what reclaim writes. */
	spinlock_t lru_lock __aligned(64);
	struct zone_lru lru[NR_LRU_LISTS];
	unsigned long pages_scanned;
	atomic_long_t vm_stat[NR_VM_ZONE_STAT_ITEMS];

	struct pglist_data *zone_pgdat __aligned(64);
	unsigned long zone_start_pfn;
	unsigned long spanned_pages;
	unsigned long present_pages;
	const char *name;
};

/* Zones in the order an allocation tries them. */
struct zonelist {
	struct zone *zones[MAX_NR_ZONES + 1];
};

typedef struct pglist_data {
	struct zone node_zones[MAX_NR_ZONES];
	struct zonelist node_zonelists[MAX_NR_ZONES];	/* by the highest zone allowed */
	struct page *node_mem_map;
} pg_data_t;

extern pg_data_t contig_page_data;
extern struct page *mem_map;
extern unsigned long max_low_pfn, max_pfn;

#define zone_idx(zone) ((zone) - contig_page_data.node_zones)
static inline bool is_highmem(struct zone *zone)
{
#ifdef CONFIG_HIGHMEM
	return zone_idx(zone) == ZONE_HIGHMEM;
#else
	(void)zone;
	return false;
#endif
}

#define for_each_zone(zone)								\
	for (zone = contig_page_data.node_zones; zone < contig_page_data.node_zones + MAX_NR_ZONES; zone++)
#define for_each_zone_zonelist(zone, at, zonelist)					\
	for (at = (zonelist)->zones; (zone = *at); at++)

#define for_each_lru(l) for (l = 0; l < NR_LRU_LISTS; l++)
#define for_each_evictable_lru(l) for (l = 0; l <= LRU_ACTIVE_FILE; l++)

static inline bool is_file_lru(enum lru_list l)
{
	return l == LRU_INACTIVE_FILE || l == LRU_ACTIVE_FILE;
}

static inline bool is_active_lru(enum lru_list l)
{
	return l == LRU_ACTIVE_ANON || l == LRU_ACTIVE_FILE;
}

#define page_to_pfn(page) ((unsigned long)((page) - mem_map) + ARCH_PFN_OFFSET)
#define pfn_to_page(pfn) (mem_map + ((pfn) - ARCH_PFN_OFFSET))
/* One comparison serves both ends: below the offset the difference is huge. */
#define pfn_valid(pfn) ((pfn) - ARCH_PFN_OFFSET < max_pfn - ARCH_PFN_OFFSET)

#define ZONES_PGSHIFT (BITS_PER_LONG - 2)

/* A page's zone is in its topmost flag bits: the truth that the wrong-zone bug forgets to ask. */
static inline struct zone *page_zone(const struct page *page)
{
	return &contig_page_data.node_zones[page->flags >> ZONES_PGSHIFT];
}

static inline unsigned long pageblock_index(struct zone *zone, unsigned long pfn)
{
	return (pfn - zone->zone_start_pfn) >> pageblock_order;
}

static inline enum migratetype get_pageblock_migratetype(struct page *page)
{
	struct zone *zone = page_zone(page);

	return zone->pageblock_type[pageblock_index(zone, page_to_pfn(page))];
}

void set_pageblock_migratetype(struct page *page, enum migratetype type);
bool zone_watermark_ok(struct zone *zone, unsigned order, unsigned long mark, int classzone, int alloc_flags);
void free_area_init(void);
void init_per_zone_wmark_min(void);

#endif
