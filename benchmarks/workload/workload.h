/*
 * A small memory manager, in the manner of Linux 2.6.39's: what benchmarks run. It depends on nothing else of this
 * project, so that figures of different days speak of the same instructions.
 *
 * CONFIG_SMP locks what Linux locks; without it there is not one LOCK prefix, as in a kernel for one CPU.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef CONFIG_SMP
#define LOCK_PREFIX "lock; "
#else
#define LOCK_PREFIX ""
#endif

/* As outside of tests/ and drivers/, calls between the files of a kernel are real calls. */
#define PAGE_SHIFT 12
#define PAGE_SIZE (1ul << PAGE_SHIFT)
#ifdef __x86_64__
#define PAGE_OFFSET 0xffff880000000000ul
#define TABLE_LEVELS 4
#define TABLE_SHIFT 9
#else
#define PAGE_OFFSET 0xc0000000ul
#define TABLE_LEVELS 2
#define TABLE_SHIFT 10
#endif
#define TABLE_ENTRIES (1ul << TABLE_SHIFT)
#define BITS_PER_LONG (8 * (unsigned)sizeof(long))

enum {
	NODES_MAX = 2,
	NODE_PAGES = 2048, /* 8 MB: several times what the machine's own translation caches reach */
	NODE_FIRST_PFN = 2048,
	MM_PAGES = 3000,   /* more than a node has, so that there is reclaim */
	SWAP_SLOTS = 4096,
	MAX_ORDER = 11,
	BLOCKS = 16,
};

struct list_head {
	struct list_head *next, *prev;
};

/* 32 bytes on 32-bit x86, 56 on 64-bit, as Linux's. */
struct page {
	unsigned long flags;
	int count;
	int mapcount;
	unsigned long private; /* order of a free block */
	void *mapping;
	unsigned long index;
	struct list_head lru;
};

enum page_flag { PG_LRU, PG_ACTIVE, PG_REFERENCED, PG_DIRTY, PG_BUDDY };
enum lru { LRU_INACTIVE, LRU_ACTIVE, LRU_COUNT };
enum item { NR_FREE, NR_INACTIVE, NR_ACTIVE, NR_MAPPED, NR_TABLES, NR_SWAPPED, NR_FAULTS, ITEM_COUNT };

struct free_area {
	struct list_head list;
	unsigned long free_count;
};

struct zone {
	unsigned lock;
	unsigned lru_lock;
	unsigned long watermark_low;
	unsigned long first_pfn;
	struct page *map;
	int pcp_count;
	struct list_head pcp;
	signed char diff[ITEM_COUNT];
	long stat[ITEM_COUNT];
	unsigned long pages_scanned;
	struct list_head lru[LRU_COUNT];
	struct free_area area[MAX_ORDER];
};

struct node {
	struct zone zone;
	uint32_t seed;
	unsigned scan_at;
	unsigned pagevec_count;
	struct page *pagevec[14];
	struct page *block[BLOCKS];
	unsigned char block_order[BLOCKS];
	unsigned long *pgd;
	unsigned swap_hint;
	unsigned long swap_map[SWAP_SLOTS / (8 * sizeof(long))];
};

extern struct node nodes[NODES_MAX];

/* -- bits -- */

static inline void bit_set(unsigned nr, unsigned long *word)
{
	__asm__ volatile(LOCK_PREFIX "bts %1, %0" : "+m"(*word) : "r"((unsigned long)nr) : "memory", "cc");
}

static inline void bit_clear(unsigned nr, unsigned long *word)
{
	__asm__ volatile(LOCK_PREFIX "btr %1, %0" : "+m"(*word) : "r"((unsigned long)nr) : "memory", "cc");
}

static inline bool bit_test_and_clear(unsigned nr, unsigned long *word)
{
	unsigned char was;
	__asm__ volatile(LOCK_PREFIX "btr %2, %0; setc %1"
			 : "+m"(*word), "=qm"(was)
			 : "r"((unsigned long)nr)
			 : "memory", "cc");
	return was;
}

static inline bool bit_test(unsigned nr, const unsigned long *word)
{
	return *word >> nr & 1;
}

/* -- atomics and locks -- */

static inline void atomic_inc(int *v)
{
	__asm__ volatile(LOCK_PREFIX "incl %0" : "+m"(*v) : : "memory", "cc");
}

static inline bool atomic_dec_and_test(int *v)
{
	unsigned char zero;
	__asm__ volatile(LOCK_PREFIX "decl %0; sete %1" : "+m"(*v), "=qm"(zero) : : "memory", "cc");
	return zero;
}

static inline void atomic_add(long delta, long *v)
{
	__asm__ volatile(LOCK_PREFIX "add %1, %0" : "+m"(*v) : "r"(delta) : "memory", "cc");
}

static inline void spin_lock(unsigned *lock)
{
#ifdef CONFIG_SMP
	uint16_t ticket = 0x100;
	__asm__ volatile("lock; xaddw %w0, %1" : "+Q"(ticket), "+m"(*lock) : : "memory", "cc");
	for (uint8_t mine = ticket >> 8, now = (uint8_t)ticket; now != mine; now = *(volatile uint8_t *)lock)
		__builtin_ia32_pause();
#else
	(void)lock;
#endif
}

static inline void spin_unlock(unsigned *lock)
{
#ifdef CONFIG_SMP
	__asm__ volatile("incb %0" : "+m"(*lock) : : "memory", "cc");
#else
	(void)lock;
#endif
}

/* -- lists -- */

#define list_entry(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

static inline void list_init(struct list_head *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}

static inline void list_add(struct list_head *entry, struct list_head *head)
{
	struct list_head *next = head->next;
	next->prev = entry;
	entry->next = next;
	entry->prev = head;
	head->next = entry;
}

static inline void list_add_tail(struct list_head *entry, struct list_head *head)
{
	list_add(entry, head->prev);
}

static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
}

/* -- small things -- */

static inline void *phys_to_virt(unsigned long phys)
{
	return (void *)(phys + PAGE_OFFSET);
}

static inline unsigned long page_to_pfn(const struct zone *zone, const struct page *page)
{
	return zone->first_pfn + (unsigned long)(page - zone->map);
}

static inline struct page *pfn_to_page(const struct zone *zone, unsigned long pfn)
{
	return zone->map + (pfn - zone->first_pfn);
}

static inline uint32_t random_next(struct node *node)
{
	uint32_t x = node->seed;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return node->seed = x;
}

/* vmstat.c */
void zone_stat_mod(struct zone *zone, enum item item, int delta);
long zone_stat_read(const struct zone *zone, enum item item);
/* page_alloc.c */
void zone_init(struct zone *zone, struct page *map, unsigned long first_pfn);
struct page *page_alloc(struct node *node, unsigned order);
void page_free(struct zone *zone, struct page *page, unsigned order);
unsigned scan_movable(struct zone *zone, unsigned first, unsigned count);
/* vmscan.c */
void lru_add(struct node *node, struct page *page);
void lru_activate(struct zone *zone, struct page *page);
unsigned reclaim(struct node *node);
unsigned lru_referenced(const struct zone *zone, unsigned count);
/* memory.c */
unsigned long *table_walk(struct node *node, unsigned long address, bool create);
void fault(struct node *node, unsigned long address, bool write);
bool test_and_clear_young(struct node *node, struct page *page);
void unmap(struct node *node, struct page *page);
/* swapfile.c */
unsigned swap_alloc(struct node *node);
void swap_free(struct node *node, unsigned slot);
unsigned swap_used(const struct node *node);
/* main.c */
void workload(struct node *node, unsigned rounds);

#endif
