/*
 * Huge page faults on memory as use has left it, not as somebody arranged it: a process touches memory until every zone
 * is down to its low watermark and gives pieces of random length back ("seed=" on the command line), then another one
 * touches one huge page after the other. How often that leads into compaction, and whether a walk over a zone's end comes
 * of it, is for the recording to tell. It depends on how large a huge page and a pageblock are, not on how page tables are
 * written: 4 MB with 2-level tables is the largest block there is (MAX_ORDER - 1), 2 MB is not.
 */
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>
#include "../mm/internal.h"

#define USER_BASE 0x08000000UL
#define OLD_BASE 0x40000000UL
#define PIECE_PAGES_MAX 1024U
#define FREE_MARGIN 128
#define PATIENCE 20

static struct task_struct *thp_task, *old_task;
static u32 random_state;
static volatile bool arranged, stop;
/* Huge pages touched so far, and how many fit. */
static volatile unsigned long touched, huge_pages;

static u32 random_below(u32 n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return (u32)(((u64)random_state * n) >> 32);
}

/* Whether one more page can be had without anybody's help. */
static bool room_left(struct zonelist *zonelist)
{
	struct zone *zone, **at;

	for_each_zone_zonelist(zone, at, zonelist) {
		unsigned long mark = low_wmark_pages(zone) + FREE_MARGIN;

		if (zone_watermark_ok(zone, 0, mark, zone_idx(zonelist->zones[0]), 0))
			return true;
	}
	return false;
}

/* Touch memory until every zone that a request for it falls back to is down to its low watermark. Returns the end. */
static unsigned long fill_memory(unsigned long address)
{
	struct zonelist *zonelist = &contig_page_data.node_zonelists[gfp_zone(GFP_HIGHUSER_MOVABLE)];

	for (; room_left(zonelist); address += PAGE_SIZE)
		*(volatile u32 *)address = 1;
	return address;
}

/* Every other piece is given back. */
static void drop_pieces(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	while (start < end) {
		unsigned long next = min(start + (1 + random_below(PIECE_PAGES_MAX)) * PAGE_SIZE, end);

		if (random_below(2)) {
			down_read(&vma->vm_mm->mmap_sem);
			zap_page_range(vma, start, next);
			up_read(&vma->vm_mm->mmap_sem);
		}
		start = next;
	}
	drain_pages(get_cpu());
	put_cpu();
}

static void old_main(void *argument)
{
	unsigned long end = fill_memory(OLD_BASE);

	(void)argument;
	drop_pieces(find_vma(current->mm, OLD_BASE), OLD_BASE, end);
	arranged = true;
	wake_up_process(current->parent);
	while (!stop) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(HZ);
	}
}

static void thp_main(void *argument)
{
	(void)argument;
	for (; touched < huge_pages && !fatal_signal_pending(current); touched++)
		*(volatile u32 *)(USER_BASE + touched * HPAGE_PMD_SIZE) = 1;
}

static struct mm_struct *new_mm(unsigned long start, unsigned long size, unsigned long vm_flags)
{
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm || !insert_vm_struct(mm, start, start + size, VM_READ | VM_WRITE | vm_flags));
	return mm;
}

void scenario_thp_pressure(void)
{
	char value[16];

	random_state = 1 + (parse_option("seed", value, sizeof(value)) ? memparse(value) : 0);
	for (int i = 0; i < 16; i++)
		(void)random_below(2);
	/* Half of memory: about what has been given back. */
	huge_pages = max_pfn / HPAGE_PMD_NR / 2;
	thp_task = make_task("thp", 0, thp_main, NULL);
	thp_task->active_mm = thp_task->mm = new_mm(USER_BASE, huge_pages * HPAGE_PMD_SIZE, 0);
	old_task = make_task("old", 0, old_main, NULL);
	old_task->active_mm = old_task->mm = new_mm(OLD_BASE, max_pfn << PAGE_SHIFT, VM_NOHUGEPAGE);
	setup_APIC_timer();
	wake_up_new_task(old_task);
	while (!arranged) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	trace_ready();

	wake_up_new_task(thp_task);
	for (int i = 0; i < PATIENCE && !thp_task->exited; i++) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(HZ / 20);
	}
	send_sig(SIGKILL, thp_task);
	wait_for_exit(thp_task);
	stop = true;
	wait_for_exit(old_task);
}
