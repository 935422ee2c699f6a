/*
 * Pages are taken out of use (madvise(MADV_SOFT_OFFLINE)) while their owner writes to them: soft_offline_page() isolates
 * without counting what migration uncounts (5db8a73a8d7c, 3.0). An anonymous page moves; a file's page cannot, and is put
 * back: NR_ISOLATED_ANON and NR_ISOLATED_FILE are 1 too low in the end, in the pages' own zone and so over all zones. No
 * schedule is needed for that, and none hides it.
 */
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_WORD (*(volatile u32 *)USER_BASE)
#define ROUNDS 3U

static struct page *file_page;
static volatile bool filled;

static void owner_main(void *argument)
{
	(void)argument;
	USER_WORD = 0;
	lru_add_drain();
	filled = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();

	/* A store that migration loses would show in the next round. */
	for (u32 round = 0; round < ROUNDS; round++) {
		BUG_ON(USER_WORD != round);
		USER_WORD = round + 1;
	}
}

static void offline_main(void *argument)
{
	(void)argument;
	BUG_ON(!soft_offline_page(file_page, 0));

	/* Last, as the allocator knows nothing of poisoned pages: nobody may ask it for one any more. */
	struct page *page = find_get_mapped(USER_BASE);
	BUG_ON(!page);
	/* It fails where the owner keeps the page busy: the page stays in use then. */
	(void)soft_offline_page(page, MF_COUNT_INCREASED);
}

void scenario_soft_offline(void)
{
	struct task_struct *owner = make_task("owner", num_online_cpus() > 1 ? 1 : 0, owner_main, NULL);
	struct task_struct *offline = make_task("offline", 0, offline_main, NULL);
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm || !insert_vm_struct(mm, USER_BASE, USER_BASE + PAGE_SIZE,
					VM_READ | VM_WRITE | VM_NOHUGEPAGE));
	file_page = alloc_page(GFP_HIGHUSER_MOVABLE);
	BUG_ON(!file_page);
	make_lru_page(file_page, LRU_INACTIVE_FILE);
	/* Both are threads of one process, which outlives them: taking it down would be most of the recording. */
	atomic_add(2, &mm->mm_users);
	owner->mm = owner->active_mm = mm;
	offline->mm = offline->active_mm = mm;
	setup_APIC_timer();
	wake_up_new_task(owner);
	while (!filled || owner->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	trace_ready();

	wake_up_new_task(offline);
	wake_up_process(owner);
	wait_for_exit(offline);
	wait_for_exit(owner);
}
