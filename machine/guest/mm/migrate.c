/* Page migration (mm/migrate.c, 2.6.39), anonymous pages. */
#include <linux/highmem.h>
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

/* This CPU only: what sits in its pagevecs is not isolatable yet. */
void migrate_prep_local(void)
{
	lru_add_drain();
}

/* Uncount by the page's own zone and by its class as it is now, then back to the LRU. */
void putback_lru_pages(struct list_head *l)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, l, lru) {
		list_del(&page->lru);
		trace_page_putback(page);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), -1);
		dec_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
		putback_lru_page(page);
	}
}

/*
 * 4.10's form of the above, which put the page back first (6afcf8ef0ca0): if that was the last reference to it, its flags
 * are wiped by then, and it uncounts as a file page. 4.11 turned it round again (fc280fe87144).
 */
void putback_movable_pages(struct list_head *l)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, l, lru) {
		enum zone_stat_item isolated_as = NR_ISOLATED_ANON + page_is_file_cache(page);

		list_del(&page->lru);
		trace_page_putback(page);
		ghost(page, isolated_as, -1);
#ifdef CONFIG_FIX_fc280fe87144
		dec_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
		putback_lru_page(page);
#else
		putback_lru_page(page);
		dec_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
#endif
		/* If it was another counter that was changed, this one should have been. */
		trace_vmstat(page_zone(page), isolated_as);
	}
}

/* Replace one mapping's migration entry by a pte to the new page. Dirty stays in PageDirty, not in the pte. */
static int remove_migration_pte(struct page *new, struct vm_area_struct *vma, unsigned long addr, void *old)
{
	struct mm_struct *mm = vma->vm_mm;
	pmd_t *pmd = mm_find_pmd(mm, addr);
	spinlock_t *ptl;

	if (!pmd || pmd_none(*pmd) || pmd_trans_huge(*pmd))
		return SWAP_AGAIN;
	pte_t *ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	pte_t entry = *ptep;
	if (is_migration_pte(entry) && migration_pte_to_page(entry) == old) {
		get_page(new);
		pte_t pte = pte_mkold(pfn_pte(page_to_pfn(new), vma->vm_page_prot));
		if (is_write_migration_pte(entry))
			pte = pte_mkwrite(pte);
		set_pte_at(mm, addr, ptep, pte);
		page_add_anon_rmap(new, vma, addr);
	}
	pte_unmap_unlock(ptep, ptl);
	return SWAP_AGAIN;
}

static void remove_migration_ptes(struct page *old, struct page *new)
{
	rmap_walk(new, remove_migration_pte, old);
}

/* A fault met a migration entry: hold the page, let go of the table, wait for the migration's end, fault again. */
void migration_entry_wait(struct mm_struct *mm, pmd_t *pmd, unsigned long address)
{
	spinlock_t *ptl;
	pte_t *ptep = pte_offset_map_lock(mm, pmd, address, &ptl);
	pte_t pte = *ptep;

	if (!is_migration_pte(pte)) {
		pte_unmap_unlock(ptep, ptl);
		return;
	}
	struct page *page = migration_pte_to_page(pte);
	/* Migration may have frozen the count: then it is about to finish anyway. */
	if (!get_page_unless_zero(page)) {
		pte_unmap_unlock(ptep, ptl);
		return;
	}
	pte_unmap_unlock(ptep, ptl);
	wait_on_page_locked(page);
	put_page(page);
}

static void migrate_page_copy(struct page *newpage, struct page *page)
{
	copy_highpage(newpage, page);
	if (PageError(page))
		SetPageError(newpage);
	if (PageReferenced(page))
		SetPageReferenced(newpage);
	if (PageUptodate(page))
		SetPageUptodate(newpage);
	if (TestClearPageActive(page)) {
		VM_BUG_ON(PageUnevictable(page));
		SetPageActive(newpage);
	}
	if (PageDirty(page)) {
		ClearPageDirty(page);
		SetPageDirty(newpage);
	}
	ClearPageSwapCache(page);
	ClearPagePrivate(page);
	set_page_private(page, 0);
	page->mapping = NULL;
}

static int move_to_new_page(struct page *newpage, struct page *page, bool remap_swapcache)
{
	/* Nobody else knows the new page yet. */
	if (!trylock_page(newpage))
		BUG();
	newpage->index = page->index;
	newpage->mapping = page->mapping;
	if (PageSwapBacked(page))
		SetPageSwapBacked(newpage);

	/* No page here has a mapping other than an anon_vma, so ours must be the only reference left. */
	int rc = 0;
	if (page_count(page) != 1)
		rc = -EAGAIN;
	else
		migrate_page_copy(newpage, page);
	if (rc)
		newpage->mapping = NULL;
	else if (remap_swapcache)
		remove_migration_ptes(page, newpage);
	unlock_page(newpage);
	return rc;
}

/* Move one isolated page. -EAGAIN leaves it on the list; any other result takes it off. */
static int unmap_and_move(new_page_t get_new_page, unsigned long private, struct page *page, bool force,
			  bool offlining, bool sync)
{
	struct page *newpage = get_new_page(page, private);
	struct anon_vma *anon_vma = NULL;
	int rc = 0;

	(void)offlining;
	if (!newpage)
		return -ENOMEM;
	if (page_count(page) == 1)
		goto move_newpage;	/* freed under us */

	rc = -EAGAIN;
	if (!trylock_page(page)) {
		/* Waiting could deadlock on a page whose owner is reclaiming. */
		if (!force || !sync || (current->flags & PF_MEMALLOC))
			goto move_newpage;
		lock_page(page);
	}

	/* Only an anon_vma that is held cannot go away while the page is unmapped. */
	if (PageAnon(page)) {
		anon_vma = page_lock_anon_vma(page);
		if (!anon_vma)
			goto unlock;
		get_anon_vma(anon_vma);
		page_unlock_anon_vma(anon_vma);
	} else {
		/* Without a mapping of its own there is no moving it. */
		goto unlock;
	}

	try_to_unmap(page, TTU_MIGRATION);
	if (!page_mapped(page))
		rc = move_to_new_page(newpage, page, true);
	if (rc)
		remove_migration_ptes(page, page);
	put_anon_vma(anon_vma);
unlock:
	unlock_page(page);
move_newpage:
	if (rc != -EAGAIN) {
		/* Uncount before putting back: afterwards the page may be freed and its flags wiped. */
		list_del(&page->lru);
		trace_page_putback(page);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), -1);
		dec_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
		putback_lru_page(page);
	}
	/* To the LRU if it was used, freed if not. */
	putback_lru_page(newpage);
	return rc;
}

/* Up to ten passes over the list. Returns how many pages stayed, or an error. */
int migrate_pages(struct list_head *from, new_page_t get_new_page, unsigned long private, bool offlining, bool sync)
{
	int retry = 1, nr_failed = 0;
	struct page *page, *page2;

	for (int pass = 0; pass < 10 && retry; pass++) {
		retry = 0;
		list_for_each_entry_safe(page, page2, from, lru) {
			cond_resched();
			switch (unmap_and_move(get_new_page, private, page, pass > 2, offlining, sync)) {
			case -ENOMEM:
				return -ENOMEM;
			case -EAGAIN:
				retry++;
				break;
			case 0:
				break;
			default:
				nr_failed++;
				break;
			}
		}
	}
	return nr_failed + retry;
}
