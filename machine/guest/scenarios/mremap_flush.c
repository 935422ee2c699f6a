/*
 * A page that is freed while a TLB still translates to it (CVE-2018-18281, fixed by eb66ae030829, 4.19): mremap() moves an
 * entry, drops the page table lock, and only then flushes the old address. Whoever takes the page away in between, here
 * ftruncate(), finds it at its new address, flushes that, and frees it. Another CPU's translation of the old address is
 * still there.
 *
 * 2.6.39's move_ptes() flushes under the lock; the loop that lost it came later, and so did flushes of single ranges: 2.6.39's
 * unmapping flushes everything and would save the day. Both are therefore here as they were in 2018.
 *
 * On UP a tick between the two is enough: threads of one process share the CPU's translations.
 */
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <asm/tlbflush.h>
#include <racetape/scenario.h>

#define OLD_ADDRESS 0x08000000UL
#define NEW_ADDRESS (OLD_ADDRESS + PAGE_SIZE)
#define OLD_WORD (*(volatile u32 *)OLD_ADDRESS)
#define NEW_WORD (*(volatile u32 *)NEW_ADDRESS)

static volatile bool mapped;

/* One page of move_page_tables() and move_ptes() (mm/mremap.c, 4.18). Page tables are there. */
static void mremap_main(void *argument)
{
	struct vm_area_struct *vma = argument;
	struct mm_struct *mm = vma->vm_mm;
	spinlock_t *ptl;

	down_write(&mm->mmap_sem);
	pte_t *old_pte = pte_offset_map_lock(mm, mm_find_pmd(mm, OLD_ADDRESS), OLD_ADDRESS, &ptl);
	pte_t *new_pte = pte_offset_map(mm_find_pmd(mm, NEW_ADDRESS), NEW_ADDRESS);
	pte_t pte = ptep_get_and_clear(mm, OLD_ADDRESS, old_pte);
	set_pte_at(mm, NEW_ADDRESS, new_pte, pte);
#ifdef CONFIG_FIX_eb66ae030829
	flush_tlb_page(vma, OLD_ADDRESS);
#endif
	pte_unmap_unlock(old_pte, ptl);
#ifndef CONFIG_FIX_eb66ae030829
	flush_tlb_page(vma, OLD_ADDRESS);
#endif
	up_write(&mm->mmap_sem);
}

/* One page of unmap_mapping_range(): of all that maps a file, whoever else changes its address space. */
static void truncate_page(struct vm_area_struct *vma, unsigned long address)
{
	struct mm_struct *mm = vma->vm_mm;
	struct page *page = NULL;
	spinlock_t *ptl;

	pte_t *pte = pte_offset_map_lock(mm, mm_find_pmd(mm, address), address, &ptl);
	if (pte_present(*pte)) {
		page = pte_page(*pte);
		(void)ptep_clear_flush(vma, address, pte);
		page_remove_rmap(page);
		dec_mm_counter(mm, MM_ANONPAGES);
	}
	pte_unmap_unlock(pte, ptl);
	if (page)
		put_page(page);
}

/* ftruncate(), and goes on with what it takes for memory of its own: what was there, or a page of zeroes. */
static void user_main(void *argument)
{
	struct vm_area_struct *vma = argument;

	OLD_WORD = 1;
	/* Both pages' tables, and nothing in the new place. */
	NEW_WORD = 1;
	truncate_page(vma, NEW_ADDRESS);
	OLD_WORD = 1;
	lru_add_drain();
	mapped = true;
	__set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();

	truncate_page(vma, NEW_ADDRESS);
	OLD_WORD = 2;
}

void scenario_mremap_flush(void)
{
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm);
	struct vm_area_struct *vma = insert_vm_struct(mm, OLD_ADDRESS, NEW_ADDRESS + PAGE_SIZE, VM_READ | VM_WRITE | VM_NOHUGEPAGE);
	BUG_ON(!vma);
	struct task_struct *user = make_task("user", num_online_cpus() > 1 ? 1 : 0, user_main, vma);
	struct task_struct *mremap = make_task("mremap", 0, mremap_main, vma);
	/* Both are threads of one process. */
	atomic_inc(&mm->mm_users);
	user->mm = user->active_mm = mm;
	mremap->mm = mremap->active_mm = mm;

	setup_APIC_timer();
	wake_up_new_task(user);
	while (!mapped || user->state != TASK_UNINTERRUPTIBLE) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
	trace_ready();

	wake_up_new_task(mremap);
	wake_up_process(user);
	wait_for_exit(mremap);
	wait_for_exit(user);
}
