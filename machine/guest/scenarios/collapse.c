/*
 * khugepaged collapses a process's pages to a huge one while compaction takes one of them away to move it and their owner
 * goes on writing to them. The first time somebody holds the last page: the pages before it are isolated by then, and
 * khugepaged has to back out. In June 2011 the counting around that was suspected. Nothing goes wrong under any schedule;
 * the variant `buggy` has a mistake planted: it does not count what it isolates.
 */
#include <linux/huge_mm.h>
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_PAGES 3UL
#define USER_WORD(page) (*(volatile u32 *)(USER_BASE + (page) * PAGE_SIZE))
#define ROUNDS 2U

static struct page *pages[USER_PAGES];
static volatile bool filled;

static void owner_main(void *argument)
{
	(void)argument;
	for (unsigned long i = 0; i < USER_PAGES; i++) {
		USER_WORD(i) = 0;
		pages[i] = find_get_mapped(USER_BASE + i * PAGE_SIZE);
		put_page(pages[i]);
	}
	lru_add_drain();
	filled = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();

	/* A store that goes to a page that is no longer used would show in the next round. */
	for (u32 round = 0; round < ROUNDS; round++) {
		for (unsigned long i = 0; i < USER_PAGES; i++) {
			BUG_ON(USER_WORD(i) != round);
			USER_WORD(i) = round + 1;
		}
	}
	for (unsigned long i = 0; i < USER_PAGES; i++)
		BUG_ON(USER_WORD(i) != ROUNDS);
}

static void khugepaged_main(void *argument)
{
	struct mm_struct *mm = argument;

	/* Somebody has come to hold the last page since it was last looked at. */
	get_page(pages[USER_PAGES - 1]);
	down_read(&mm->mmap_sem);
	BUG_ON(collapse_huge_page(mm, USER_BASE));
	put_page(pages[USER_PAGES - 1]);

	/* What was put back sits in this CPU's pagevec. */
	lru_add_drain();
	(void)khugepaged_scan_pmd(mm, USER_BASE);
}

static struct page *new_page(struct page *page, unsigned long private)
{
	(void)page;
	(void)private;
	return alloc_page(GFP_HIGHUSER_MOVABLE);
}

/* As isolate_migratepages() does, though not by page number. It holds no lock that khugepaged does, nor mmap_sem. */
static void compact_main(void *argument)
{
	struct page *page = pages[1];
	struct zone *zone = page_zone(page);
	LIST_HEAD(migratelist);

	(void)argument;
	migrate_prep_local();
	spin_lock_irq(&zone->lru_lock);
	if (PageLRU(page) && !PageTransHuge(page) && __isolate_lru_page(page, ISOLATE_BOTH, 0) == 0) {
		trace_page_isolate(page, zone);
		del_page_from_lru_list(zone, page, page_lru(page));
		list_add(&page->lru, &migratelist);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), 1);
		__mod_zone_page_state(zone, NR_ISOLATED_ANON + page_is_file_cache(page), 1);
	}
	spin_unlock_irq(&zone->lru_lock);
	if (migrate_pages(&migratelist, new_page, 0, false, true))
		putback_lru_pages(&migratelist);
}

void scenario_collapse(void)
{
	unsigned cpu = num_online_cpus() > 1 ? 1 : 0;
	struct task_struct *owner = make_task("owner", cpu, owner_main, NULL);
	struct task_struct *compact = make_task("compact", cpu, compact_main, NULL);
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm);
	struct vm_area_struct *vma = insert_vm_struct(mm, USER_BASE, USER_BASE + HPAGE_PMD_SIZE,
						      VM_READ | VM_WRITE | VM_NOHUGEPAGE);
	BUG_ON(!vma);
	struct task_struct *khugepaged = make_task("khugepaged", 0, khugepaged_main, mm);
	/* It outlives its owner: taking it down would be most of the recording. */
	atomic_inc(&mm->mm_users);
	owner->mm = owner->active_mm = mm;

	struct page *huge_frame = take_huge_frame();
	setup_APIC_timer();
	wake_up_new_task(owner);
	while (!filled || owner->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	for (unsigned long i = 0; i < USER_PAGES; i++)
		BUG_ON(!PageLRU(pages[i]));
	/* The one block that a huge entry can map: the next to be handed out. */
	put_page(huge_frame);
	vma->vm_flags &= ~VM_NOHUGEPAGE;
	trace_ready();

	wake_up_new_task(khugepaged);
	wake_up_new_task(compact);
	wake_up_process(owner);
	wait_for_exit(khugepaged);
	wait_for_exit(compact);
	wait_for_exit(owner);
	pmd_t *pmd = mm_find_pmd(mm, USER_BASE);
	BUG_ON(pmd_trans_huge(*pmd) && pmd_page(*pmd) != huge_frame);
}
