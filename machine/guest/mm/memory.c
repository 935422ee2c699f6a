/* Faults, fork's copying, unmapping (mm/memory.c, 2.6.39), anonymous memory. */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm-generic/tlb.h>
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

/* For a table that the hardware may have walked: freed only after the flush. */
void pte_free_tlb(struct mmu_gather *tlb, struct page *page)
{
	ghost(page, NR_PAGETABLE, -1);
	dec_zone_page_state(page, NR_PAGETABLE);
	tlb_remove_page(tlb, page);
}

#if PAGETABLE_LEVELS > 3
int __pud_alloc(struct mm_struct *mm, pgd_t *pgd)
{
	pud_t *new = pud_alloc_one();

	if (!new)
		return -ENOMEM;
	smp_wmb();	/* see __pte_alloc() */
	spin_lock(&mm->page_table_lock);
	if (pgd_none(*pgd)) {
		set_pgd(pgd, __pgd(__pa(new) | _PAGE_TABLE));
		new = NULL;
	}
	spin_unlock(&mm->page_table_lock);
	if (new)
		pud_free(mm, new);
	return 0;
}

int __pmd_alloc(struct mm_struct *mm, pud_t *pud)
{
	pmd_t *new = pmd_alloc_one();

	if (!new)
		return -ENOMEM;
	smp_wmb();	/* see __pte_alloc() */
	spin_lock(&mm->page_table_lock);
	if (pud_none(*pud)) {
		set_pud(pud, __pud(__pa(new) | _PAGE_TABLE));
		new = NULL;
	}
	spin_unlock(&mm->page_table_lock);
	if (new)
		pmd_free(mm, new);
	return 0;
}
#endif

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
		set_pmd(pmd, __pmd(((pteval_t)page_to_pfn(new) << PAGE_SHIFT) | _PAGE_TABLE));
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
	if (pte_same(*page_table, orig_pte)) {
		pte_t entry = maybe_mkwrite(pte_mkdirty(pfn_pte(page_to_pfn(new_page), vma->vm_page_prot)), vma);

		(void)ptep_clear_flush(vma, page_addr, page_table);
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

/*
 * A PAE entry is read in two halves. What came out not present may never have been there in that form: ask again under the
 * lock. Entries of one word cannot be torn.
 */
static bool pte_unmap_same(struct mm_struct *mm, pmd_t *pmd, pte_t *pte, pte_t orig_pte)
{
	bool same = true;

	if (sizeof(pte_t) > sizeof(unsigned long)) {
		spinlock_t *ptl = pte_lockptr(mm, pmd);

		spin_lock(ptl);
		same = pte_same(*pte, orig_pte);
		spin_unlock(ptl);
	}
	return same;
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
		if (!pte_unmap_same(mm, pmd, pte, entry))
			return 0;
		BUG_ON(!is_migration_pte(entry));
		migration_entry_wait(mm, pmd, address);
		return 0;
	}
	ptl = pte_lockptr(mm, pmd);
	spin_lock(ptl);
	if (unlikely(!pte_same(*pte, entry)))
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
	__set_current_state(TASK_RUNNING);
	pud_t *pud = pud_alloc(mm, pgd_offset(mm, address), address);
	if (!pud)
		return VM_FAULT_OOM;
	pmd_t *pmd = pmd_alloc(mm, pud, address);
	if (!pmd)
		return VM_FAULT_OOM;
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
			pte = make_migration_pte_read(pte);
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

/* A pmd at a time at any number of levels: PMD_SIZE is that of the lowest entry above a page table. */
int copy_page_range(struct mm_struct *dst_mm, struct mm_struct *src_mm, struct vm_area_struct *vma)
{
	unsigned long next;

	for (unsigned long addr = vma->vm_start; addr != vma->vm_end; addr = next) {
		pmd_t *src_pmd = mm_find_pmd(src_mm, addr);

		next = pmd_addr_end(addr, vma->vm_end);
		if (!src_pmd || pmd_none(*src_pmd))
			continue;
		pud_t *dst_pud = pud_alloc(dst_mm, pgd_offset(dst_mm, addr), addr);
		if (!dst_pud)
			return -ENOMEM;
		pmd_t *dst_pmd = pmd_alloc(dst_mm, dst_pud, addr);
		if (!dst_pmd)
			return -ENOMEM;
		if (pmd_trans_huge(*src_pmd)) {
			int err = copy_huge_pmd(dst_mm, src_mm, dst_pmd, src_pmd, addr, vma);

			if (err == -ENOMEM)
				return err;
			if (!err)
				continue;
		}
		if (copy_pte_range(dst_mm, src_mm, dst_pmd, src_pmd, addr, next))
			return -ENOMEM;
	}
	return 0;
}

/* -- unmapping -- */

static void zap_pte_range(struct mmu_gather *tlb, struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr,
			  unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;
	spinlock_t *ptl;
	pte_t *pte = pte_offset_map_lock(mm, pmd, addr, &ptl);

	for (; addr != end; pte++, addr += PAGE_SIZE) {
		pte_t ptent = *pte;

		if (pte_none(ptent))
			continue;
		/* ptep_get_and_clear_full(): where the mm has no users left, without XCHG on SMP either. */
		if (tlb->fullmm)
			pte_clear(mm, addr, pte);
		else
			ptent = ptep_get_and_clear(mm, addr, pte);
		if (!pte_present(ptent))
			continue;
		struct page *page = pte_page(ptent);
		dec_mm_counter(mm, MM_ANONPAGES);
		page_remove_rmap(page);
		tlb_remove_page(tlb, page);
	}
	pte_unmap_unlock(pte, ptl);
}

/* Unmap [start, end) of one vma. Gathering keeps preemption off, so it is broken off where somebody waits for the CPU. */
void unmap_vma(struct mmu_gather **tlbp, struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	unsigned long next;

	for (unsigned long addr = start; addr != end; addr = next) {
		pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);

		next = pmd_addr_end(addr, end);
		if (!pmd || pmd_none(*pmd))
			continue;
		if (!pmd_trans_huge(*pmd) || !zap_huge_pmd(*tlbp, vma, pmd))
			zap_pte_range(*tlbp, vma, pmd, addr, next);
		if (need_resched()) {
			bool fullmm = (*tlbp)->fullmm;

			tlb_finish_mmu(*tlbp);
			cond_resched();
			*tlbp = tlb_gather_mmu(vma->vm_mm, fullmm);
		}
	}
}

/* Throw the pages of [start, end) away; the next touch finds zeros. Caller holds mmap_sem. Huge pages only as a whole. */
void zap_page_range(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	lru_add_drain();
	struct mmu_gather *tlb = tlb_gather_mmu(vma->vm_mm, false);
	unmap_vma(&tlb, vma, start, end);
	tlb_finish_mmu(tlb);
}

/* -- freeing page tables -- */

/* Whether no neighbour reaches into the table entry of `size` bytes that holds `addr`; a ceiling of 0 is the very top. */
static bool entry_unused(unsigned long addr, unsigned long size, unsigned long floor, unsigned long ceiling)
{
	unsigned long start = addr & ~(size - 1);

	return start >= floor && start + size - 1 <= ceiling - 1;
}

/*
 * The vma is unmapped: what is left under it is empty page tables, which go from the lowest level up where nothing else
 * between `floor` and `ceiling` needs them.
 */
void free_pgtables(struct mmu_gather *tlb, struct vm_area_struct *vma, unsigned long floor, unsigned long ceiling)
{
	struct mm_struct *mm = vma->vm_mm;
	unsigned long start = vma->vm_start, end = vma->vm_end;

	for (unsigned long addr = start; addr != end; addr = pmd_addr_end(addr, end)) {
		pmd_t *pmd = mm_find_pmd(mm, addr);

		if (!pmd || pmd_none(*pmd) || !entry_unused(addr, PMD_SIZE, floor, ceiling))
			continue;
		struct page *table = pmd_page(*pmd);
		pmd_clear(pmd);
		pte_free_tlb(tlb, table);
		mm->nr_ptes--;
	}
#if PAGETABLE_LEVELS > 2
	for (unsigned long addr = start; addr != end; addr = table_addr_end(addr, end, PUD_SIZE)) {
		pgd_t *pgd = pgd_offset(mm, addr);
		pud_t *pud = pgd_present(*pgd) ? pud_offset(pgd, addr) : NULL;

		if (!pud || pud_none(*pud) || !entry_unused(addr, PUD_SIZE, floor, ceiling))
			continue;
		pmd_t *table = pmd_offset(pud, 0);
		pud_clear(pud);
		tlb_remove_page(tlb, virt_to_page(table));
	}
#endif
#if PAGETABLE_LEVELS > 3
	for (unsigned long addr = start; addr != end; addr = table_addr_end(addr, end, PGDIR_SIZE)) {
		pgd_t *pgd = pgd_offset(mm, addr);

		if (pgd_none(*pgd) || !entry_unused(addr, PGDIR_SIZE, floor, ceiling))
			continue;
		pud_t *table = pud_offset(pgd, 0);
		pgd_clear(pgd);
		tlb_remove_page(tlb, virt_to_page(table));
	}
#endif
}
