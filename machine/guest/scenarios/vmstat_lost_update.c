/*
 * Two tasks on one CPU count dirty pages of the same zone, and may be preempted at any instruction: as if what stands in
 * account_page_dirtied() were called without the tree_lock, which keeps preemption and interrupts away there. The
 * updates that need such a guard are right for it, __inc_zone_page_state(): beyond the threshold they add up what the
 * CPU's differential was, then set it to what is left; who counts in between is overwritten, and folded twice. Those
 * that need none (7c83912062c8, 2.6.38) repeat a compare-exchange until nobody came in between.
 *
 * The UP build has no differentials: either update is one instruction on the zone's word, and nothing can go wrong.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/vmstat.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

/* Enough for each to cross the threshold at least once with one CPU and with two. */
#define PAGES_DIRTIED 8

static void account_page_dirtied(struct page *page)
{
	ghost(page, NR_FILE_DIRTY, 1);
#ifdef CONFIG_FIXED
	inc_zone_page_state(page, NR_FILE_DIRTY);
#else
	__inc_zone_page_state(page, NR_FILE_DIRTY);
#endif
}

static void writer_main(void *argument)
{
	for (int i = 0; i < PAGES_DIRTIED; i++)
		account_page_dirtied(argument);
}

void scenario_vmstat_lost_update(void)
{
	/* One page stands for all: only its zone is asked for. */
	struct page *page = alloc_page(GFP_KERNEL);
	struct task_struct *writers[2];

	BUG_ON(!page);
	for (unsigned i = 0; i < ARRAY_SIZE(writers); i++) {
		writers[i] = make_task("writer", 0, writer_main, page);
		wake_up_new_task(writers[i]);
	}
	setup_APIC_timer();
	trace_ready();

	for (unsigned i = 0; i < ARRAY_SIZE(writers); i++)
		wait_for_exit(writers[i]);
	if (zone_page_state_snapshot(page_zone(page), NR_FILE_DIRTY) != ARRAY_SIZE(writers) * PAGES_DIRTIED)
		scenario_failed("NR_FILE_DIRTY is not the number of pages that were dirtied: an update was overwritten");
}
