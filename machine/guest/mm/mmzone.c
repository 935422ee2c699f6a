/* Setting up zones, mem_map, zonelists and watermarks (mm/page_alloc.c, 2.6.39, its __init part). */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

pg_data_t contig_page_data;
struct page *mem_map;

static DEFINE_PER_CPU(struct per_cpu_pageset, boot_pageset[MAX_NR_ZONES]);

#ifdef CONFIG_X86_64
static const char *const zone_names[MAX_NR_ZONES] = { "DMA", "DMA32", "Normal" };
#else
static const char *const zone_names[MAX_NR_ZONES] = { "DMA", "Normal", "HighMem" };
#endif

#ifdef CONFIG_SMALL
#define MAX_DMA_PFN SMALL_DMA_END
#else
#define MAX_DMA_PFN (0x1000000UL >> PAGE_SHIFT)
#endif
#define MAX_DMA32_PFN (0x100000000ULL >> PAGE_SHIFT)

/* Pages per refill: a thousandth of the zone, at most 512 KB, a quarter of that, one less than a power of two. */
static int zone_batchsize(struct zone *zone)
{
	int batch = min(zone->present_pages / 1024, 512 * 1024 / PAGE_SIZE) / 4;

	if (batch < 1)
		batch = 1;
	return (1 << (fls(batch + batch / 2) - 1)) - 1;
}

static void zone_init(struct zone *zone, enum zone_type type, unsigned long start_pfn, unsigned long end_pfn)
{
	zone->name = zone_names[type];
	zone->zone_pgdat = &contig_page_data;
	zone->zone_start_pfn = start_pfn;
	zone->spanned_pages = end_pfn - start_pfn;
	zone->present_pages = end_pfn - start_pfn;
	spin_lock_init(&zone->lock);
	spin_lock_init(&zone->lru_lock);
	for (unsigned l = 0; l < NR_LRU_LISTS; l++)
		INIT_LIST_HEAD(&zone->lru[l].list);
	for (unsigned order = 0; order < MAX_ORDER; order++) {
		for (unsigned t = 0; t < MIGRATE_TYPES; t++)
			INIT_LIST_HEAD(&zone->free_area[order].free_list[t]);
	}

	int batch = zone_batchsize(zone);
	zone->pageset = &boot_pageset[type];
	for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
		struct per_cpu_pages *pcp = &per_cpu_ptr(zone->pageset, cpu)->pcp;

		pcp->high = 6 * batch;
		pcp->batch = max(1, batch);
		for (unsigned t = 0; t < MIGRATE_PCPTYPES; t++)
			INIT_LIST_HEAD(&pcp->lists[t]);
	}

	unsigned long blocks = (zone->spanned_pages + pageblock_nr_pages - 1) >> pageblock_order;
	zone->pageblock_type = alloc_bootmem(blocks);
	memset(zone->pageblock_type, MIGRATE_MOVABLE, blocks);

	for (unsigned long pfn = start_pfn; pfn < end_pfn; pfn++) {
		struct page *page = pfn_to_page(pfn);

		page->flags = (unsigned long)type << ZONES_PGSHIFT | 1UL << PG_reserved;
		init_page_count(page);
		reset_page_mapcount(page);
		INIT_LIST_HEAD(&page->lru);
	}
}

/* node_zonelists[t]: zone t, then downwards; empty zones are left out. */
static void build_zonelists(void)
{
	for (int type = 0; type < MAX_NR_ZONES; type++) {
		struct zone **at = contig_page_data.node_zonelists[type].zones;

		for (int below = type; below >= 0; below--) {
			if (contig_page_data.node_zones[below].present_pages)
				*at++ = &contig_page_data.node_zones[below];
		}
	}
}

void free_area_init(void)
{
	unsigned long end_pfn[MAX_NR_ZONES] = {
		[ZONE_DMA] = min(MAX_DMA_PFN, max_low_pfn),
#ifdef CONFIG_X86_64
		[ZONE_DMA32] = min(MAX_DMA32_PFN, max_low_pfn),
#endif
		[ZONE_NORMAL] = max_low_pfn,
#ifdef CONFIG_HIGHMEM
		[ZONE_HIGHMEM] = max_pfn,
#endif
	};
	unsigned long start_pfn = ARCH_PFN_OFFSET;

	mem_map = alloc_bootmem((max_pfn - ARCH_PFN_OFFSET) * sizeof(struct page));
	contig_page_data.node_mem_map = mem_map;
	for (int type = 0; type < MAX_NR_ZONES; type++) {
		zone_init(&contig_page_data.node_zones[type], type, start_pfn, end_pfn[type]);
		start_pfn = end_pfn[type];
	}
	build_zonelists();
}

static unsigned long int_sqrt(unsigned long x)
{
	unsigned long root = 0;

	for (unsigned long bit = 1UL << 15; bit; bit >>= 1) {
		if ((root + bit) * (root + bit) <= x)
			root += bit;
	}
	return root;
}

/* How much of a lower zone a request that could use a higher one must leave (sysctl_lowmem_reserve_ratio). */
static void setup_per_zone_lowmem_reserve(void)
{
#ifdef CONFIG_X86_64
	static const int ratio[MAX_NR_ZONES - 1] = { 256, 256 };
#else
	static const int ratio[MAX_NR_ZONES - 1] = { 256, 32 };
#endif

	for (int high = 1; high < MAX_NR_ZONES; high++) {
		unsigned long managed = contig_page_data.node_zones[high].present_pages;

		for (int low = high - 1; low >= 0; low--) {
			contig_page_data.node_zones[low].lowmem_reserve[high] = managed / ratio[low];
			managed += contig_page_data.node_zones[low].present_pages;
		}
	}
}

void init_per_zone_wmark_min(void)
{
	unsigned long lowmem_pages = 0;
	struct zone *zone;

	for_each_zone(zone) {
		if (!is_highmem(zone))
			lowmem_pages += zone->present_pages;
	}
	unsigned long min_free_kbytes = int_sqrt(lowmem_pages * (PAGE_SIZE / 1024) * 16);
	min_free_kbytes = max(128UL, min(65536UL, min_free_kbytes));
	unsigned long pages_min = min_free_kbytes >> (PAGE_SHIFT - 10);

	for_each_zone(zone) {
		/* pages_min * present_pages fits: 16384 pages times the 229376 of lowmem. */
		unsigned long share = pages_min * zone->present_pages / lowmem_pages;

		if (is_highmem(zone))
			zone->watermark[WMARK_MIN] = max(SWAP_CLUSTER_MAX, min(128UL, zone->present_pages / 1024));
		else
			zone->watermark[WMARK_MIN] = share;
		zone->watermark[WMARK_LOW] = min_wmark_pages(zone) + (share >> 2);
		zone->watermark[WMARK_HIGH] = min_wmark_pages(zone) + (share >> 1);
	}
	setup_per_zone_lowmem_reserve();
	refresh_zone_stat_thresholds();
}
