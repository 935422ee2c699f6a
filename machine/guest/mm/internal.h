#ifndef MM_INTERNAL_H
#define MM_INTERNAL_H

#include <linux/mm.h>

/* Watermark choice and permissions of get_page_from_freelist() (mm/page_alloc.c, 2.6.39). */
#define ALLOC_WMARK_MIN WMARK_MIN
#define ALLOC_WMARK_LOW WMARK_LOW
#define ALLOC_WMARK_HIGH WMARK_HIGH
#define ALLOC_NO_WATERMARKS 0x04
#define ALLOC_WMARK_MASK (ALLOC_NO_WATERMARKS - 1)
#define ALLOC_HARDER 0x10
#define ALLOC_HIGH 0x20

static inline unsigned long page_order(struct page *page)
{
	return page_private(page);
}

int split_free_page(struct page *page);
struct page *get_page_from_freelist(gfp_t gfp_mask, unsigned order, struct zonelist *zonelist, int alloc_flags,
				    struct zone *preferred_zone, int migratetype);
int fragmentation_index(struct zone *zone, unsigned order);

#endif
