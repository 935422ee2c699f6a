/*
 * Pages change their class while they are isolated (fc280fe87144, 4.11): what compaction does when it finds no page to
 * migrate to, against the owner who unmaps one of them meanwhile. Isolation's reference is then the last one. Going back
 * to the LRU by way of a pagevec, pages are usually kept by that a little longer; but the one that fills it is drained
 * with all others and freed at once, flags and all. Uncounted after that it counts as a file page: NR_ISOLATED_ANON stays
 * one too high, NR_ISOLATED_FILE one too low.
 */
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/pagevec.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
/* The last of them to go back fills the pagevec. */
#define USER_PAGES ((unsigned long)PAGEVEC_SIZE)

static struct page *pages[USER_PAGES];
static volatile bool filled;

static void owner_main(void *argument)
{
	struct mm_struct *mm = current->mm;

	(void)argument;
	for (unsigned long i = 0; i < USER_PAGES; i++) {
		*(volatile u32 *)(USER_BASE + i * PAGE_SIZE) = 1;
		pages[i] = find_get_mapped(USER_BASE + i * PAGE_SIZE);
		put_page(pages[i]);
	}
	lru_add_drain();
	filled = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();

	/* The page that is isolated first and put back last. */
	down_read(&mm->mmap_sem);
	zap_page_range(find_vma(mm, USER_BASE), USER_BASE, USER_BASE + PAGE_SIZE);
	up_read(&mm->mmap_sem);
}

/* As isolate_migratepages() does, though not by page number. */
static void isolate(struct list_head *migratelist)
{
	struct zone *zone = user_zone();
	int count = 0;

	spin_lock_irq(&zone->lru_lock);
	for (unsigned long i = 0; i < USER_PAGES; i++) {
		struct page *page = pages[i];

		if (__isolate_lru_page(page, ISOLATE_BOTH, 0) != 0)
			continue;
		trace_page_isolate(page, zone);
		del_page_from_lru_list(zone, page, page_lru(page));
		list_add(&page->lru, migratelist);
		ghost(page, NR_ISOLATED_ANON, 1);
		count++;
	}
	__mod_zone_page_state(zone, NR_ISOLATED_ANON, count);
	spin_unlock_irq(&zone->lru_lock);
}

static struct page *no_page(struct page *page, unsigned long private)
{
	(void)page;
	(void)private;
	return NULL;
}

static void compact_main(void *argument)
{
	LIST_HEAD(migratelist);

	(void)argument;
	migrate_prep_local();
	isolate(&migratelist);
	if (migrate_pages(&migratelist, no_page, 0, false, true))
		putback_movable_pages(&migratelist);
}

void scenario_class_flip(void)
{
	struct task_struct *owner = make_task("owner", num_online_cpus() > 1 ? 1 : 0, owner_main, NULL);
	struct task_struct *compact = make_task("compact", 0, compact_main, NULL);
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm || !insert_vm_struct(mm, USER_BASE, USER_BASE + USER_PAGES * PAGE_SIZE,
					VM_READ | VM_WRITE | VM_NOHUGEPAGE));
	owner->mm = mm;
	owner->active_mm = mm;
	/* It outlives its owner: taking it down would be most of the recording. */
	atomic_inc(&mm->mm_users);
	setup_APIC_timer();
	wake_up_new_task(owner);
	while (!filled || owner->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	for (unsigned long i = 0; i < USER_PAGES; i++)
		BUG_ON(page_zone(pages[i]) != user_zone() || !PageLRU(pages[i]));
	trace_ready();

	wake_up_new_task(compact);
	wake_up_process(owner);
	wait_for_exit(compact);
	wait_for_exit(owner);
	if (zone_page_state_snapshot(user_zone(), NR_ISOLATED_ANON) ||
	    zone_page_state_snapshot(user_zone(), NR_ISOLATED_FILE))
		scenario_failed("a page changed its class while isolated: NR_ISOLATED_ANON and NR_ISOLATED_FILE are off");
}
