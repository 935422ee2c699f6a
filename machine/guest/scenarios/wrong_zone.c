/*
 * The founding case (7454f4ba40b4, 3.0): compaction of ZONE_DMA walks into ZONE_NORMAL, isolates one cluster of its pages
 * and counts them for DMA; putting them back uncounts them for Normal. On UP a reader then sees 2^32 - n isolated pages
 * and stalls. The arrangement:
 *
 *   DMA      all pageblocks but the last: free but in pieces, and not movable, so that the scanner skips them and the few
 *            LRU pages there, without which DMA's LRU counters would go below zero as well
 *            the last: one page on the LRU, the rest taken, nothing free
 *   Normal   the first pageblock: a cluster of 25 anonymous and 7 file pages (3 and 1 in the small flavour) from its
 *            fifth page on, then more file pages; elsewhere a few free pages, in pieces
 *   HighMem  two huge pages' worth of free blocks, of which the watermark lets one go, and some pieces
 *
 * On x86-64 there is no HighMem, and with less than 4 GB nothing in Normal: DMA32 takes the place of both.
 *
 * The numbers 25 and 7 are those of the report of 19 July 2011.
 */
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_WORD(page, offset) (*(volatile u32 *)(USER_BASE + (page) * HPAGE_PMD_SIZE + (offset)))
#define PATTERN 0x600dda7aU

#define CLUSTER_ANON (SWAP_CLUSTER_MAX * 25 / 32)
#define FIRST_LRU_OFFSET 4
#ifdef CONFIG_SMALL
#define DMA_FILE_PAGES 1
#define DMA_ANON_PAGES 4
#define MORE_FILE_PAGES 8
#else
#define DMA_FILE_PAGES 14
#define DMA_ANON_PAGES 32
#define MORE_FILE_PAGES 64
#endif

/* Enough for the kernel above the low watermark, too little for compaction of this zone to look worthwhile. */
#if defined(CONFIG_SMALL) && defined(CONFIG_X86_64)
#define NORMAL_FREE_BLOCKS 3
#elif defined(CONFIG_SMALL)
#define NORMAL_FREE_BLOCKS 4
#elif defined(CONFIG_X86_64)
#define NORMAL_FREE_BLOCKS 2
#else
#define NORMAL_FREE_BLOCKS (2UL << (10 - pageblock_order))
#endif

/*
 * x86-64: with the huge pages' blocks not more than the low watermark, where there are so few pages that the kernel
 * could use its own up: it then turns to DMA, not to these blocks.
 */
#ifdef CONFIG_SMALL
#define USER_FREE_PAGES 4
#else
#define USER_FREE_PAGES (pageblock_nr_pages - 1)
#endif

static struct task_struct *thp_task, *reclaim_task;
static volatile bool walk_begun;

/*
 * A pageblock of free memory without a free block of its own order: the first page stays taken. The first, as from
 * anywhere else in the block the migration scanner's skip would overshoot the next one.
 */
static void free_in_pieces(unsigned long start_pfn)
{
	if (!PageReserved(pfn_to_page(start_pfn)))
		(void)hog_take(start_pfn);
	hog_release(start_pfn, start_pfn + pageblock_nr_pages);
}

static void arrange_dma(struct zone *zone)
{
	unsigned long last = zone->zone_start_pfn + zone->spanned_pages - pageblock_nr_pages;

	for (unsigned long i = 0; i < DMA_FILE_PAGES + DMA_ANON_PAGES; i++)
		make_lru_page(hog_take(last - 1 - i), i < DMA_FILE_PAGES ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON);
	for (unsigned long pfn = zone->zone_start_pfn; pfn < last; pfn += pageblock_nr_pages) {
		set_pageblock_migratetype(pfn_to_page(pfn), MIGRATE_UNMOVABLE);
		free_in_pieces(pfn);
	}
	make_lru_page(hog_take(last + pageblock_nr_pages / 2), LRU_INACTIVE_FILE);
}

static void arrange_normal(struct zone *zone)
{
	unsigned long first = zone->zone_start_pfn + FIRST_LRU_OFFSET;

	for (unsigned long i = 0; i < SWAP_CLUSTER_MAX + MORE_FILE_PAGES; i++)
		make_lru_page(hog_take(first + i), i < CLUSTER_ANON ? LRU_INACTIVE_ANON : LRU_INACTIVE_FILE);
	for (unsigned long block = 2; block < 2 + NORMAL_FREE_BLOCKS; block++) {
		unsigned long pfn = zone->zone_start_pfn + block * pageblock_nr_pages;

#ifdef CONFIG_X86_64
		/* The kernel's own, lest it take from the huge pages' blocks, which lie in the same zone. */
		set_pageblock_migratetype(pfn_to_page(pfn), MIGRATE_UNMOVABLE);
#endif
		free_in_pieces(pfn);
	}
}

static void arrange_user(struct zone *zone)
{
	unsigned long pfn = zone->zone_start_pfn;

#ifdef CONFIG_X86_64
	/* Behind what arrange_normal() has laid out, on a 4 MB frame; the very top is the kernel's already. */
	pfn += 16 * pageblock_nr_pages;
	hog_release(pfn - pageblock_nr_pages - USER_FREE_PAGES, pfn - pageblock_nr_pages);
#else
	free_in_pieces(pfn + 2 * pageblock_nr_pages);
#endif
	hog_release(pfn + pageblock_nr_pages, pfn + 2 * pageblock_nr_pages);
	/* Freed last, so handed out first; on a 4 MB frame in the small flavour too. */
	hog_release(pfn, pfn + pageblock_nr_pages);
}

static void child_main(void *argument)
{
	(void)argument;
	BUG_ON(USER_WORD(0, 0) != PATTERN);
}

/* A process: huge page fault that succeeds, fork, huge page fault that has to compact. */
static void thp_main(void *argument)
{
	(void)argument;
	USER_WORD(0, 0) = PATTERN;

	struct task_struct *child = do_fork("child", current->cpu, 0, child_main, NULL);
	BUG_ON(!child);
	wake_up_new_task(child);
	wait_for_exit(child);
	put_task(child);

	walk_begun = true;
	wake_up_process(reclaim_task);
	USER_WORD(1, 0) = PATTERN + 1;
	BUG_ON(USER_WORD(0, 0) != PATTERN);
	BUG_ON(USER_WORD(1, 0) != PATTERN + 1);
}

/* Somebody else short of memory: direct reclaim of Normal, the reader that is misled. */
static void reclaim_main(void *argument)
{
	(void)argument;
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (walk_begun)
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	try_to_free_pages(&contig_page_data.node_zonelists[ZONE_NORMAL], 0, GFP_KERNEL);
}

#ifdef CONFIG_SMP
#define CHURN_ROUNDS 4

/* The other CPUs use Normal's page lists, LRU, counters and locks, on pages of their own. */
static void churn_main(void *argument)
{
	(void)argument;
	for (int round = 0; round < CHURN_ROUNDS; round++) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			continue;
		__lru_cache_add(page, LRU_INACTIVE_FILE);
		lru_add_drain();
		if (isolate_lru_page(page) == 0) {
			ghost(page, NR_ISOLATED_FILE, 1);
			inc_zone_page_state(page, NR_ISOLATED_FILE);
			ghost(page, NR_ISOLATED_FILE, -1);
			dec_zone_page_state(page, NR_ISOLATED_FILE);
			putback_lru_page(page);
		}
		put_page(page);
	}
	lru_add_drain();
}
#endif

static bool hung(struct task_struct *task)
{
	return task->exited || (walk_begun && task->state == TASK_UNINTERRUPTIBLE);
}

/* The hung task detector: once both sit in uninterruptible sleep, or are gone, nothing but a signal gets them on. */
static void watch(void)
{
	do {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(HZ / 20);
	} while (!hung(thp_task) || !hung(reclaim_task));
	send_sig(SIGKILL, thp_task);
	send_sig(SIGKILL, reclaim_task);
	wait_for_exit(thp_task);
	wait_for_exit(reclaim_task);
}

void scenario_wrong_zone(void)
{
	struct zone *zones = contig_page_data.node_zones;
	unsigned cpus = num_online_cpus();
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm || !insert_vm_struct(mm, USER_BASE, USER_BASE + 3 * HPAGE_PMD_SIZE, VM_READ | VM_WRITE));
	for (int type = 0; type < MAX_NR_ZONES; type++)
		hog_zone(type);
	arrange_dma(&zones[ZONE_DMA]);
	arrange_normal(&zones[ZONE_DMA + 1]);
	arrange_user(user_zone());

	thp_task = make_task("thp", 0, thp_main, NULL);
	thp_task->mm = mm;
	thp_task->active_mm = mm;
	reclaim_task = make_task("reclaim", cpus > 1 ? 1 : 0, reclaim_main, NULL);
#ifdef CONFIG_SMP
	struct task_struct *churn[NR_CPUS] = { NULL };
	for (unsigned cpu = 1; cpu < cpus; cpu++)
		churn[cpu] = make_task("churn", cpu, churn_main, NULL);
#endif
	setup_APIC_timer();
	trace_ready();

	wake_up_new_task(thp_task);
	wake_up_new_task(reclaim_task);
#ifdef CONFIG_SMP
	for (unsigned cpu = 1; cpu < cpus; cpu++)
		wake_up_new_task(churn[cpu]);
#endif
	watch();
#ifdef CONFIG_SMP
	for (unsigned cpu = 1; cpu < cpus; cpu++)
		wait_for_exit(churn[cpu]);
#endif
}
