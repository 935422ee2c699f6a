/*
 * Compaction that works, and fork with copy-on-write: nothing is wrong here, in any variant and under any schedule. A
 * process has a few anonymous pages in one pageblock of HighMem (x86-64: DMA32); an allocation of a whole pageblock
 * must move them up. The process forks and both sides write meanwhile.
 */
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_PAGES 4UL
#define USER_WORD(page) (*(volatile u32 *)(USER_BASE + (page) * PAGE_SIZE))

static struct task_struct *owner_task, *compact_task;
static volatile bool filled;
static unsigned long first_pfn;
/* How many of the pages had moved when compaction was over; fewer than all if the owner ran meanwhile. */
static unsigned long migrated_pages;

static void child_main(void *argument)
{
	(void)argument;
	for (u32 i = 0; i < USER_PAGES; i++)
		BUG_ON(USER_WORD(i) != i + 1);
	/* The parent must not see this. */
	USER_WORD(0) = 100;
	BUG_ON(USER_WORD(0) != 100);
}

static void owner_main(void *argument)
{
	(void)argument;
	for (u32 i = 0; i < USER_PAGES; i++)
		USER_WORD(i) = i + 1;
	lru_add_drain_cpu(current->cpu);
	filled = true;
	wake_up_process(current->parent);

	/* Asleep until there is something to move and somebody moves it. */
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	struct task_struct *child = do_fork("child", current->cpu, 0, child_main, NULL);
	BUG_ON(!child);
	wake_up_new_task(child);
	for (u32 i = 0; i < USER_PAGES; i++) {
		BUG_ON(USER_WORD(i) != i + 1);
		USER_WORD(i) = i + 11;
	}
	wait_for_exit(child);
	put_task(child);
	for (u32 i = 0; i < USER_PAGES; i++)
		BUG_ON(USER_WORD(i) != i + 11);
}

static void compact_main(void *argument)
{
	struct page *page = alloc_pages(GFP_TRANSHUGE, pageblock_order);

	(void)argument;
	if (page)
		put_page(page);
	/* Freed pages may sit in this CPU's pagevec still. */
	lru_add_drain();
	for (unsigned long i = 0; i < USER_PAGES; i++)
		migrated_pages += !page_mapped(pfn_to_page(first_pfn + i));
}

void scenario_compact(void)
{
#ifdef CONFIG_X86_64
	/* Kernel and processes share the zone: processes get the upper part. */
	unsigned long pfn = user_zone()->zone_start_pfn + 8 * pageblock_nr_pages;
#else
	unsigned long pfn = user_zone()->zone_start_pfn;
#endif
	struct zone *kernel_zone = contig_page_data.node_zonelists[ZONE_NORMAL].zones[0];
	const unsigned long vm_flags = VM_READ | VM_WRITE | VM_NOHUGEPAGE;
	struct mm_struct *mm = mm_alloc();

	first_pfn = pfn;
	BUG_ON(!mm || !insert_vm_struct(mm, USER_BASE, USER_BASE + USER_PAGES * PAGE_SIZE, vm_flags));
	owner_task = make_task("owner", 0, owner_main, NULL);
	owner_task->mm = mm;
	owner_task->active_mm = mm;
	compact_task = make_task("compact", num_online_cpus() > 1 ? 1 : 0, compact_main, NULL);

	for (int type = 0; type < MAX_NR_ZONES; type++)
		hog_zone(type);
	/* Kernel memory in pieces only, so that the request has to make room among the process's. */
	for (unsigned long block = 2; block < 6; block++) {
		unsigned long start = kernel_zone->zone_start_pfn + block * pageblock_nr_pages;

		(void)hog_take(start);
#ifdef CONFIG_X86_64
		set_pageblock_migratetype(pfn_to_page(start), MIGRATE_UNMOVABLE);
#endif
		hog_release(start, start + pageblock_nr_pages);
	}
	hog_release(pfn, pfn + pageblock_nr_pages);
	wake_up_new_task(owner_task);
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (filled)
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	for (unsigned long block = 1; block < 3; block++) {
		(void)hog_take(pfn + block * pageblock_nr_pages);
		hog_release(pfn + block * pageblock_nr_pages, pfn + (block + 1) * pageblock_nr_pages);
	}
	setup_APIC_timer();
	trace_ready();

	wake_up_new_task(compact_task);
	while (owner_task->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	wake_up_process(owner_task);
	wait_for_exit(compact_task);
	wait_for_exit(owner_task);
	for (int type = 0; type < MAX_NR_ZONES; type++) {
		BUG_ON(zone_page_state(&contig_page_data.node_zones[type], NR_ISOLATED_ANON));
		BUG_ON(zone_page_state(&contig_page_data.node_zones[type], NR_ISOLATED_FILE));
	}
}
