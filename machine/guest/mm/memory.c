/* Faults, fork's copying, unmapping (mm/memory.c, 2.6.39), anonymous memory. */
#include <linux/huge_mm.h>
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

struct page *pte_alloc_one(struct mm_struct *mm)
{
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

	(void)mm;
	if (!page)
		return NULL;
	spin_lock_init(&page->ptl);
	ghost(page, NR_PAGETABLE, 1);
	inc_zone_page_state(page, NR_PAGETABLE);
	return page;
}

void pte_free(struct mm_struct *mm, struct page *page)
{
	(void)mm;
	ghost(page, NR_PAGETABLE, -1);
	dec_zone_page_state(page, NR_PAGETABLE);
	__free_page(page);
}

int __pte_alloc(struct mm_struct *mm, pmd_t *pmd)
{
	struct page *new = pte_alloc_one(mm);

	if (!new)
		return -ENOMEM;
	/* Whoever sees the table must see it cleared and its lock set up (362a61ad6119). */
	smp_wmb();
	spin_lock(&mm->page_table_lock);
	if (pmd_none(*pmd)) {
		mm->nr_ptes++;
		set_pmd(pmd, __pmd((page_to_pfn(new) << PAGE_SHIFT) | _PAGE_TABLE));
		new = NULL;
	}
	spin_unlock(&mm->page_table_lock);
	if (new)
		pte_free(mm, new);
	return 0;
}

void clear_huge_page(struct page *page, unsigned long addr, unsigned pages_per_huge_page)
{
	(void)addr;
	for (unsigned i = 0; i < pages_per_huge_page; i++) {
		cond_resched();
		clear_highpage_start(page + i, HPAGE_TOUCHED_BYTES);
	}
}

/* -- locking single pages: a sleep of one tick in place of wait queues -- */

void lock_page(struct page *page)
{
	while (!trylock_page(page)) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
}

void wait_on_page_locked(struct page *page)
{
	while (PageLocked(page)) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	}
}

/* -- faults -- */

static pte_t maybe_mkwrite(pte_t pte, struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_WRITE ? pte_mkwrite(pte) : pte;
}

static int do_anonymous_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd)
{
	spinlock_t *ptl;

	if (unlikely(anon_vma_prepare(vma)))
		return VM_FAULT_OOM;
	struct page *page = alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_ZERO);
	if (!page)
		return VM_FAULT_OOM;
	__SetPageUptodate(page);
	pte_t entry = maybe_mkwrite(pte_mkdirty(pfn_pte(page_to_pfn(page), vma->vm_page_prot)), vma);

	pte_t *page_table = pte_offset_map_lock(mm, pmd, address, &ptl);
	if (!pte_none(*page_table)) {
		pte_unmap_unlock(page_table, ptl);
		put_page(page);
		return 0;
	}
	inc_mm_counter(mm, MM_ANONPAGES);
	page_add_new_anon_rmap(page, vma, address);
	set_pte_at(mm, address, page_table, entry);
	pte_unmap_unlock(page_table, ptl);
	return 0;
}

/* Entered with the page table lock held, leaves without. */
static int do_wp_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
		      pte_t *page_table, spinlock_t *ptl, pte_t orig_pte)
{
	struct page *old_page = pte_page(orig_pte);
	unsigned long page_addr = address & PAGE_MASK;

	if (page_mapcount(old_page) == 1 && trylock_page(old_page)) {
		/* The page lock keeps others from starting to share it by way of swap. */
		bool reuse = page_mapcount(old_page) == 1;

		unlock_page(old_page);
		if (reuse) {
			set_pte_at(mm, page_addr, page_table, maybe_mkwrite(pte_mkdirty(pte_mkyoung(orig_pte)), vma));
			flush_tlb_page(vma, page_addr);
			pte_unmap_unlock(page_table, ptl);
			return 0;
		}
	}
	get_page(old_page);
	pte_unmap_unlock(page_table, ptl);

	struct page *new_page = NULL;
	if (!anon_vma_prepare(vma))
		new_page = alloc_page(GFP_HIGHUSER_MOVABLE);
	if (!new_page) {
		put_page(old_page);
		return VM_FAULT_OOM;
	}
	copy_highpage(new_page, old_page);
	__SetPageUptodate(new_page);

	page_table = pte_offset_map_lock(mm, pmd, address, &ptl);
	struct page *drop = new_page;
	if (pte_val(*page_table) == pte_val(orig_pte)) {
		pte_t entry = maybe_mkwrite(pte_mkdirty(pfn_pte(page_to_pfn(new_page), vma->vm_page_prot)), vma);

		(void)ptep_get_and_clear(mm, page_addr, page_table);
		flush_tlb_page(vma, page_addr);
		page_add_new_anon_rmap(new_page, vma, page_addr);
		set_pte_at(mm, page_addr, page_table, entry);
		/* Only now may the other owner find itself alone (945754a1754f). */
		page_remove_rmap(old_page);
		drop = old_page;
	}
	pte_unmap_unlock(page_table, ptl);
	put_page(drop);
	put_page(old_page);
	return 0;
}

int handle_pte_fault(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
		     unsigned flags)
{
	pte_t *pte = pte_offset_map(pmd, address);
	pte_t entry = *pte;
	spinlock_t *ptl;

	if (!pte_present(entry)) {
		if (pte_none(entry))
			return do_anonymous_page(mm, vma, address, pmd);
		BUG_ON(!is_migration_pte(entry));
		migration_entry_wait(mm, pmd, address);
		return 0;
	}
	ptl = pte_lockptr(mm, pmd);
	spin_lock(ptl);
	if (unlikely(pte_val(*pte) != pte_val(entry)))
		goto unlock;
	if (flags & FAULT_FLAG_WRITE) {
		if (!pte_write(entry))
			return do_wp_page(mm, vma, address, pmd, pte, ptl, entry);
		entry = pte_mkdirty(entry);
	}
	/* Somebody else's fault made it valid, or A and D are missing. */
	set_pte_at(mm, address, pte, pte_mkyoung(entry));
	flush_tlb_page(vma, address);
unlock:
	pte_unmap_unlock(pte, ptl);
	return 0;
}

int handle_mm_fault(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, unsigned flags)
{
	pmd_t *pmd = pmd_offset_mm(mm, address);

	__set_current_state(TASK_RUNNING);
	if (pmd_none(*pmd)) {
		if (!(vma->vm_flags & VM_NOHUGEPAGE))
			return do_huge_pmd_anonymous_page(mm, vma, address, pmd, flags);
	} else {
		pmd_t orig_pmd = *pmd;

		barrier();
		if (pmd_trans_huge(orig_pmd)) {
			if ((flags & FAULT_FLAG_WRITE) && !pmd_write(orig_pmd))
				return do_huge_pmd_wp_page(mm, vma, address, pmd, orig_pmd);
			return 0;
		}
	}
	if (unlikely(pmd_none(*pmd)) && __pte_alloc(mm, pmd))
		return VM_FAULT_OOM;
	/* Materialised huge by another thread meanwhile: its fault was ours. */
	if (unlikely(pmd_trans_huge(*pmd)))
		return 0;
	return handle_pte_fault(mm, vma, address, pmd, flags);
}

/* -- fork -- */

static void copy_one_pte(struct mm_struct *dst_mm, pte_t *dst_pte, pte_t *src_pte)
{
	pte_t pte = *src_pte;

	if (!pte_present(pte)) {
		/* A writable migration entry becomes a read-only one on both sides. */
		if (is_write_migration_pte(pte)) {
			pte = __pte(SWP_ENTRY(SWP_MIGRATION_READ, SWP_OFFSET(pte_val(pte))));
			set_pte(src_pte, pte);
		}
		set_pte(dst_pte, pte);
		return;
	}
	ptep_set_wrprotect(src_pte);
	pte = pte_mkold(pte_wrprotect(pte));
	struct page *page = pte_page(pte);
	get_page(page);
	page_dup_rmap(page);
	inc_mm_counter(dst_mm, MM_ANONPAGES);
	set_pte(dst_pte, pte);
}

/* Breaks off every 32 units of work if somebody waits for the CPU. */
static int copy_pte_range(struct mm_struct *dst_mm, struct mm_struct *src_mm, pmd_t *dst_pmd, pmd_t *src_pmd,
			  unsigned long addr, unsigned long end)
{
	while (addr != end) {
		spinlock_t *src_ptl, *dst_ptl;
		int progress = 0;

		if (pmd_none(*dst_pmd) && __pte_alloc(dst_mm, dst_pmd))
			return -ENOMEM;
		pte_t *dst_pte = pte_offset_map_lock(dst_mm, dst_pmd, addr, &dst_ptl);
		pte_t *src_pte = pte_offset_map(src_pmd, addr);
		src_ptl = pte_lockptr(src_mm, src_pmd);
		spin_lock_nested(src_ptl, 1);
		for (; addr != end; dst_pte++, src_pte++, addr += PAGE_SIZE) {
			if (progress >= 32) {
				progress = 0;
				if (need_resched())
					break;
			}
			progress++;
			if (pte_none(*src_pte))
				continue;
			copy_one_pte(dst_mm, dst_pte, src_pte);
			progress += 8;
		}
		spin_unlock(src_ptl);
		pte_unmap_unlock(dst_pte, dst_ptl);
		cond_resched();
	}
	return 0;
}

int copy_page_range(struct mm_struct *dst_mm, struct mm_struct *src_mm, struct vm_area_struct *vma)
{
	unsigned long next;

	for (unsigned long addr = vma->vm_start; addr != vma->vm_end; addr = next) {
		pmd_t *src_pmd = pmd_offset_mm(src_mm, addr);
		pmd_t *dst_pmd = pmd_offset_mm(dst_mm, addr);

		next = pmd_addr_end(addr, vma->vm_end);
		if (pmd_trans_huge(*src_pmd)) {
			int err = copy_huge_pmd(dst_mm, src_mm, dst_pmd, src_pmd, addr, vma);

			if (err == -ENOMEM)
				return err;
			if (!err)
				continue;
		}
		if (pmd_none(*src_pmd))
			continue;
		if (copy_pte_range(dst_mm, src_mm, dst_pmd, src_pmd, addr, next))
			return -ENOMEM;
	}
	return 0;
}

/* -- exit -- */

/* The mm's last user is gone, so no TLB entry of it can be used any more: the "fast mode" frees pages at once. */
static void zap_pte_range(struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;
	spinlock_t *ptl;
	pte_t *pte = pte_offset_map_lock(mm, pmd, addr, &ptl);

	for (; addr != end; pte++, addr += PAGE_SIZE) {
		pte_t ptent = *pte;

		if (pte_none(ptent))
			continue;
		/* ptep_get_and_clear_full(full = 1): without XCHG on SMP either. */
		pte_clear(mm, addr, pte);
		if (!pte_present(ptent))
			continue;
		struct page *page = pte_page(ptent);
		dec_mm_counter(mm, MM_ANONPAGES);
		page_remove_rmap(page);
		put_page(page);
	}
	pte_unmap_unlock(pte, ptl);
}

void unmap_vma(struct vm_area_struct *vma)
{
	unsigned long next;

	for (unsigned long addr = vma->vm_start; addr != vma->vm_end; addr = next) {
		pmd_t *pmd = pmd_offset_mm(vma->vm_mm, addr);

		next = pmd_addr_end(addr, vma->vm_end);
		if (pmd_trans_huge(*pmd) && zap_huge_pmd(vma, pmd))
			continue;
		if (!pmd_none(*pmd))
			zap_pte_range(vma, pmd, addr, next);
		cond_resched();
	}
}

/* All vmas are unmapped: what is left under them is empty page tables. */
void free_pgtables(struct vm_area_struct *vma)
{
	struct mm_struct *mm = vma->vm_mm;

	for (unsigned long i = pgd_index(vma->vm_start); i <= pgd_index(vma->vm_end - 1); i++) {
		pmd_t pmd = mm->pgd[i];

		if (pmd_none(pmd))
			continue;
		pmd_clear(&mm->pgd[i]);
		mm->nr_ptes--;
		pte_free(mm, pmd_page(pmd));
	}
}
