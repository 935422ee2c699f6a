/*
 * A huge page is split, as mprotect() of a part of it does first, while its owner goes on using it. In June 2011 the mark
 * in the page directory entry was suspected, on CPUs with 2-level page tables. Nothing goes wrong under any schedule; the
 * variant `buggy` has a mistake planted: its mark is a bit that the hardware takes notice of.
 */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_WORD(page) (*(volatile u32 *)(USER_BASE + (page) * PAGE_SIZE))
/* Head, a tail, the last. */
static const unsigned long used[] = { 0, 1, HPAGE_PMD_NR - 1 };
#define ROUNDS 3U

#define LOST "what was written to a page that is being split is not there"

static volatile bool filled;

static void owner_main(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(used); i++)
		USER_WORD(used[i]) = 1;
	lru_add_drain();
	filled = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();

	for (u32 round = 1; round < ROUNDS; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(used); i++) {
			if (USER_WORD(used[i]) != round)
				scenario_failed(LOST);
			USER_WORD(used[i]) = round + 1;
		}
	}
}

static void split_main(void *argument)
{
	struct mm_struct *mm = argument;

	/* Who finds the entry not present sleeps. */
	down_write(&mm->mmap_sem);
	split_huge_page_pmd(mm, mm_find_pmd(mm, USER_BASE));
	up_write(&mm->mmap_sem);
}

void scenario_split(void)
{
	struct page *huge_frame = take_huge_frame();
	struct task_struct *owner = make_task("owner", num_online_cpus() > 1 ? 1 : 0, owner_main, NULL);
	struct zone *zone = page_zone(huge_frame);
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm || !insert_vm_struct(mm, USER_BASE, USER_BASE + HPAGE_PMD_SIZE, VM_READ | VM_WRITE));
	struct task_struct *split = make_task("split", 0, split_main, mm);
	/* It outlives its owner: taking it down would be most of the recording. */
	atomic_inc(&mm->mm_users);
	owner->mm = owner->active_mm = mm;
	put_page(huge_frame);
	setup_APIC_timer();
	wake_up_new_task(owner);
	while (!filled || owner->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	pmd_t *pmd = mm_find_pmd(mm, USER_BASE);
	BUG_ON(!pmd_trans_huge(*pmd) || pmd_page(*pmd) != huge_frame || !PageLRU(huge_frame));
	unsigned long active = zone_page_state_snapshot(zone, NR_ACTIVE_ANON);
	unsigned long anon = zone_page_state_snapshot(zone, NR_ANON_PAGES);
	trace_ready();

	wake_up_new_task(split);
	wake_up_process(owner);
	wait_for_exit(split);
	wait_for_exit(owner);
	BUG_ON(pmd_trans_huge(*pmd) || pmd_trans_splitting(*pmd) || mm->pmd_huge_pte);
	for (struct page *page = huge_frame; page < huge_frame + HPAGE_PMD_NR; page++)
		BUG_ON(PageCompound(page) || !PageLRU(page) || page_count(page) != 1 || page_mapcount(page) != 1);
	for (unsigned i = 0; i < ARRAY_SIZE(used); i++) {
		u32 *word = kmap_atomic(huge_frame + used[i]);

		if (*word != ROUNDS)
			scenario_failed(LOST);
		kunmap_atomic(word);
	}
	if (zone_page_state_snapshot(zone, NR_ANON_TRANSPARENT_HUGEPAGES) ||
	    zone_page_state_snapshot(zone, NR_ANON_PAGES) != anon + HPAGE_PMD_NR ||
	    zone_page_state_snapshot(zone, NR_ACTIVE_ANON) != active)
		scenario_failed("small pages do not count for what the huge page did");
}
