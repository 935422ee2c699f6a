/*
 * A dirty bit that is lost (d52605d7cb30, 4.16): a huge page is written to while another thread takes its entry away for
 * a moment, as splitting and changes of protection do. The hardware sets D in the entry by itself, at the first store
 * after it was clean; if that is between the load and the store of a pmdp_invalidate() which is not one exchange, nobody
 * will ever know that the page was written to.
 *
 * On UP no page walk comes in between, so that load and store are good enough there.
 */
#include <linux/huge_mm.h>
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/tlbflush.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define USER_WORD (*(volatile u32 *)USER_BASE)

static volatile bool mapped;

static void writer_main(void *argument)
{
	(void)argument;
	USER_WORD = 1;
	mapped = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	USER_WORD = 2;
}

/*
 * As mprotect() and change_huge_pmd() do, with a protection that allows no less than before: only what the hardware adds
 * may differ. A fault meanwhile sleeps at mmap_sem.
 */
static void protect_main(void *argument)
{
	struct vm_area_struct *vma = argument;
	struct mm_struct *mm = vma->vm_mm;
	pmd_t *pmd = mm_find_pmd(mm, USER_BASE);

	down_write(&mm->mmap_sem);
	spin_lock(&mm->page_table_lock);
	pmd_t entry = pmdp_invalidate(vma, USER_BASE, pmd);
	set_pmd_at(mm, USER_BASE, pmd, entry);
	spin_unlock(&mm->page_table_lock);
	up_write(&mm->mmap_sem);
}

void scenario_dirty_bit(void)
{
	struct task_struct *writer = make_task("writer", num_online_cpus() > 1 ? 1 : 0, writer_main, NULL);
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm);
	struct vm_area_struct *vma = insert_vm_struct(mm, USER_BASE, USER_BASE + HPAGE_PMD_SIZE, VM_READ | VM_WRITE);
	BUG_ON(!vma);
	struct task_struct *protect = make_task("protect", 0, protect_main, vma);
	/* Both are threads of one process, which outlives them: its pages are looked at in the end. */
	atomic_add(2, &mm->mm_users);
	writer->mm = writer->active_mm = mm;
	protect->mm = protect->active_mm = mm;

	/* Given back last, it is the first to be handed out. */
	put_page(take_huge_frame());
	setup_APIC_timer();
	wake_up_new_task(writer);
	while (!mapped || writer->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	/* As if it had just been written out: clean, in memory and in every TLB. */
	pmd_t *pmd = mm_find_pmd(mm, USER_BASE);
	struct page *page = pmd_page(*pmd);
	BUG_ON(!pmd_trans_huge(*pmd) || !pmd_dirty(*pmd) || PageDirty(page));
	set_pmd_at(mm, USER_BASE, pmd, pmd_mkclean(*pmd));
	flush_tlb_mm(mm);
	trace_ready();

	wake_up_new_task(protect);
	wake_up_process(writer);
	wait_for_exit(protect);
	wait_for_exit(writer);
	if (!pmd_dirty(*pmd) && !PageDirty(page))
		scenario_failed("a page was written to, but neither its entry nor the page itself is dirty: D is lost");
}
