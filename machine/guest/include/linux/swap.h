#ifndef LINUX_SWAP_H
#define LINUX_SWAP_H

#include <linux/mm.h>

#define ISOLATE_INACTIVE 0
#define ISOLATE_ACTIVE 1
#define ISOLATE_BOTH 2

/* mm/swap.c */
void __lru_cache_add(struct page *page, enum lru_list lru);
void lru_cache_add_lru(struct page *page, enum lru_list lru);
void lru_add_page_tail(struct zone *zone, struct page *page, struct page *page_tail);
void lru_add_drain(void);
void lru_add_drain_cpu(int cpu);
void release_pages(struct page **pages, int nr);
void __page_cache_release(struct page *page);

/* mm/vmscan.c */
int __isolate_lru_page(struct page *page, int mode, int file);
int isolate_lru_page(struct page *page);
void putback_lru_page(struct page *page);
unsigned long try_to_free_pages(struct zonelist *zonelist, int order, gfp_t gfp_mask);

/* mm/backing-dev.c */
long congestion_wait(long timeout);

#endif
