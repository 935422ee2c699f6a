/* Allocation flags (include/linux/gfp.h, 2.6.39). */
#ifndef LINUX_GFP_H
#define LINUX_GFP_H

#include <linux/mmzone.h>

#define __GFP_DMA 0x01u
#define __GFP_HIGHMEM 0x02u
#define __GFP_DMA32 0x04u
#define __GFP_MOVABLE 0x08u
#define __GFP_WAIT 0x10u
#define __GFP_HIGH 0x20u
#define __GFP_IO 0x40u
#define __GFP_FS 0x80u
#define __GFP_NOWARN 0x200u
#define __GFP_NORETRY 0x1000u
#define __GFP_COMP 0x4000u
#define __GFP_ZERO 0x8000u
#define __GFP_NOMEMALLOC 0x10000u
#define __GFP_HARDWALL 0x20000u
#define __GFP_NO_KSWAPD 0x400000u

#define GFP_ATOMIC (__GFP_HIGH)
#define GFP_KERNEL (__GFP_WAIT | __GFP_IO | __GFP_FS)
#define GFP_HIGHUSER_MOVABLE (__GFP_WAIT | __GFP_IO | __GFP_FS | __GFP_HARDWALL | __GFP_HIGHMEM | __GFP_MOVABLE)
#define GFP_TRANSHUGE (GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN | \
		       __GFP_NO_KSWAPD)

static inline enum migratetype allocflags_to_migratetype(gfp_t gfp_mask)
{
	return gfp_mask & __GFP_MOVABLE ? MIGRATE_MOVABLE : MIGRATE_UNMOVABLE;
}

static inline enum zone_type gfp_zone(gfp_t gfp_mask)
{
	if (gfp_mask & __GFP_DMA)
		return ZONE_DMA;
#ifdef CONFIG_X86_64
	if (gfp_mask & __GFP_DMA32)
		return ZONE_DMA32;
#endif
#ifdef CONFIG_HIGHMEM
	if (gfp_mask & __GFP_HIGHMEM)
		return ZONE_HIGHMEM;
#endif
	return ZONE_NORMAL;
}

struct page *alloc_pages(gfp_t gfp_mask, unsigned order);
#define alloc_page(gfp_mask) alloc_pages(gfp_mask, 0)
unsigned long __get_free_pages(gfp_t gfp_mask, unsigned order);
unsigned long get_zeroed_page(gfp_t gfp_mask);
void __free_pages(struct page *page, unsigned order);
void __free_pages_ok(struct page *page, unsigned order);
#define __free_page(page) __free_pages((page), 0)
void free_pages(unsigned long address, unsigned order);
void free_hot_cold_page(struct page *page, int cold);
void drain_pages(unsigned cpu);

#endif
