/* Reverse mapping of anonymous pages (mm/rmap.c, 2.6.39). */
#include <linux/mm_inline.h>
#include <linux/rmap.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

DEFINE_KMEM_CACHE(anon_vma_cache, struct anon_vma);
DEFINE_KMEM_CACHE(anon_vma_chain_cache, struct anon_vma_chain);

static struct anon_vma *anon_vma_alloc(void)
{
	struct anon_vma *anon_vma = kmem_cache_zalloc(&anon_vma_cache);

	if (anon_vma) {
		anon_vma->root = anon_vma;
		spin_lock_init(&anon_vma->lock);
		atomic_set(&anon_vma->refcount, 1);
		INIT_LIST_HEAD(&anon_vma->head);
	}
	return anon_vma;
}

void put_anon_vma(struct anon_vma *anon_vma)
{
	if (!atomic_dec_and_test(&anon_vma->refcount))
		return;
	if (anon_vma->root != anon_vma)
		put_anon_vma(anon_vma->root);
	kmem_cache_free(&anon_vma_cache, anon_vma);
}

/* To the TAIL: walkers meet parents before children, on which split and migration against fork rely. */
static void anon_vma_chain_link(struct vm_area_struct *vma, struct anon_vma_chain *avc, struct anon_vma *anon_vma)
{
	avc->vma = vma;
	avc->anon_vma = anon_vma;
	list_add(&avc->same_vma, &vma->anon_vma_chain);
	spin_lock(&anon_vma->root->lock);
	list_add_tail(&avc->same_anon_vma, &anon_vma->head);
	spin_unlock(&anon_vma->root->lock);
}

int anon_vma_prepare(struct vm_area_struct *vma)
{
	if (likely(vma->anon_vma))
		return 0;
	struct anon_vma_chain *avc = kmem_cache_zalloc(&anon_vma_chain_cache);
	struct anon_vma *anon_vma = anon_vma_alloc();
	struct mm_struct *mm = vma->vm_mm;
	if (!avc || !anon_vma)
		goto out_of_memory;

	/* Threads fault with mmap_sem held for reading only: the page_table_lock decides who is first. */
	spin_lock(&mm->page_table_lock);
	if (!vma->anon_vma) {
		vma->anon_vma = anon_vma;
		anon_vma_chain_link(vma, avc, anon_vma);
		anon_vma = NULL;
		avc = NULL;
	}
	spin_unlock(&mm->page_table_lock);
	if (!avc)
		return 0;
	put_anon_vma(anon_vma);
	kmem_cache_free(&anon_vma_chain_cache, avc);
	return 0;
out_of_memory:
	if (avc)
		kmem_cache_free(&anon_vma_chain_cache, avc);
	if (anon_vma)
		put_anon_vma(anon_vma);
	return -ENOMEM;
}

/* The child's vma joins all of its parent's anon_vmas and gets one of its own, under the same root. */
int anon_vma_fork(struct vm_area_struct *vma, struct vm_area_struct *pvma)
{
	struct anon_vma_chain *pavc, *avc;

	if (!pvma->anon_vma)
		return 0;
	list_for_each_entry(pavc, &pvma->anon_vma_chain, same_vma) {
		avc = kmem_cache_zalloc(&anon_vma_chain_cache);
		if (!avc)
			return -ENOMEM;
		get_anon_vma(pavc->anon_vma);
		anon_vma_chain_link(vma, avc, pavc->anon_vma);
	}
	struct anon_vma *anon_vma = anon_vma_alloc();
	avc = kmem_cache_zalloc(&anon_vma_chain_cache);
	if (!anon_vma || !avc)
		return -ENOMEM;
	anon_vma->root = pvma->anon_vma->root;
	get_anon_vma(anon_vma->root);
	vma->anon_vma = anon_vma;
	anon_vma_chain_link(vma, avc, anon_vma);
	return 0;
}

void unlink_anon_vmas(struct vm_area_struct *vma)
{
	struct anon_vma_chain *avc, *next;

	list_for_each_entry_safe(avc, next, &vma->anon_vma_chain, same_vma) {
		struct anon_vma *anon_vma = avc->anon_vma;

		spin_lock(&anon_vma->root->lock);
		list_del(&avc->same_anon_vma);
		spin_unlock(&anon_vma->root->lock);
		list_del(&avc->same_vma);
		kmem_cache_free(&anon_vma_chain_cache, avc);
		put_anon_vma(anon_vma);
	}
}

/*
 * The anon_vma behind a page, locked by its root. The page may be unmapped at any moment before that, so "mapped" is
 * asked again under the lock (f18194275c39). In place of RCU, preemption is off between reading and locking.
 */
struct anon_vma *page_lock_anon_vma(struct page *page)
{
	preempt_disable();
	unsigned long anon_mapping = (unsigned long)ACCESS_ONCE(page->mapping);
	struct anon_vma *anon_vma = (struct anon_vma *)(anon_mapping - PAGE_MAPPING_ANON);

	if (!(anon_mapping & PAGE_MAPPING_ANON) || !page_mapped(page)) {
		preempt_enable();
		return NULL;
	}
	spin_lock(&anon_vma->root->lock);
	preempt_enable_no_resched();
	if (page_mapped(page))
		return anon_vma;
	spin_unlock(&anon_vma->root->lock);
	return NULL;
}

void page_unlock_anon_vma(struct anon_vma *anon_vma)
{
	spin_unlock(&anon_vma->root->lock);
}

static void __page_set_anon_rmap(struct page *page, struct vm_area_struct *vma, unsigned long address, bool exclusive)
{
	struct anon_vma *anon_vma = vma->anon_vma;

	BUG_ON(!anon_vma);
	if (PageAnon(page))
		return;
	/* Unless this process alone can have it, the page belongs to the oldest of the family. */
	if (!exclusive)
		anon_vma = anon_vma->root;
	page->mapping = (struct address_space *)((unsigned long)anon_vma + PAGE_MAPPING_ANON);
	page->index = vma->vm_pgoff + ((address - vma->vm_start) >> PAGE_SHIFT);
}

void page_add_anon_rmap(struct page *page, struct vm_area_struct *vma, unsigned long address)
{
	if (atomic_inc_and_test(&page->_mapcount)) {
		ghost(page, PageTransHuge(page) ? NR_ANON_TRANSPARENT_HUGEPAGES : NR_ANON_PAGES, 1);
		__inc_zone_page_state(page, PageTransHuge(page) ? NR_ANON_TRANSPARENT_HUGEPAGES : NR_ANON_PAGES);
		__page_set_anon_rmap(page, vma, address, false);
	}
}

void page_add_new_anon_rmap(struct page *page, struct vm_area_struct *vma, unsigned long address)
{
	enum zone_stat_item item = PageTransHuge(page) ? NR_ANON_TRANSPARENT_HUGEPAGES : NR_ANON_PAGES;

	SetPageSwapBacked(page);
	atomic_set(&page->_mapcount, 0);
	ghost(page, item, 1);
	__inc_zone_page_state(page, item);
	__page_set_anon_rmap(page, vma, address, true);
	lru_cache_add_lru(page, LRU_ACTIVE_ANON);
}

/* The caller holds the page table lock, which keeps preemption away from the unguarded counter update. */
void page_remove_rmap(struct page *page)
{
	enum zone_stat_item item = PageTransHuge(page) ? NR_ANON_TRANSPARENT_HUGEPAGES : NR_ANON_PAGES;

	if (!atomic_add_negative(-1, &page->_mapcount))
		return;
	ghost(page, item, -1);
	__dec_zone_page_state(page, item);
}

static bool page_in_vma(struct page *page, struct vm_area_struct *vma, unsigned long *address)
{
	*address = vma_address(page, vma);
	return *address >= vma->vm_start && *address < vma->vm_end;
}

/* Turn one mapping into a migration entry that remembers whether it was writable. */
static int try_to_unmap_one(struct page *page, struct vm_area_struct *vma, unsigned long address, enum ttu_flags flags)
{
	struct mm_struct *mm = vma->vm_mm;
	pmd_t *pmd = mm_find_pmd(mm, address);
	spinlock_t *ptl;
	int ret = SWAP_AGAIN;

	if (!pmd || pmd_none(*pmd) || pmd_trans_huge(*pmd))
		return ret;
	pte_t *pte = pte_offset_map_lock(mm, pmd, address, &ptl);
	if (!pte_present(*pte) || pte_pfn(*pte) != page_to_pfn(page))
		goto out_unmap;
	/* There is no swap to unmap to. */
	if (flags != TTU_MIGRATION) {
		ret = SWAP_FAIL;
		goto out_unmap;
	}
	pte_t pteval = ptep_clear_flush(vma, address, pte);
	if (pte_dirty(pteval))
		SetPageDirty(page);
	set_pte_at(mm, address, pte, make_migration_pte(page, pte_write(pteval)));
	page_remove_rmap(page);
	put_page(page);
out_unmap:
	pte_unmap_unlock(pte, ptl);
	return ret;
}

int try_to_unmap(struct page *page, enum ttu_flags flags)
{
	struct anon_vma *anon_vma = page_lock_anon_vma(page);
	struct anon_vma_chain *avc;
	int ret = SWAP_AGAIN;

	BUG_ON(!PageLocked(page));
	if (!anon_vma)
		return ret;
	list_for_each_entry(avc, &anon_vma->head, same_anon_vma) {
		unsigned long address;

		if (!page_in_vma(page, avc->vma, &address))
			continue;
		ret = try_to_unmap_one(page, avc->vma, address, flags);
		if (ret != SWAP_AGAIN || !page_mapped(page))
			break;
	}
	page_unlock_anon_vma(anon_vma);
	return page_mapped(page) ? ret : SWAP_SUCCESS;
}

/*
 * Visit every place where the page may be mapped, mapped or not. The caller keeps the anon_vma alive, and the page lock
 * keeps page->mapping.
 */
int rmap_walk(struct page *page, int (*rmap_one)(struct page *, struct vm_area_struct *, unsigned long, void *),
	      void *arg)
{
	struct anon_vma *anon_vma = (struct anon_vma *)((unsigned long)page->mapping - PAGE_MAPPING_ANON);
	struct anon_vma_chain *avc;
	int ret = SWAP_AGAIN;

	VM_BUG_ON(!PageLocked(page));
	if (!PageAnon(page))
		return ret;
	spin_lock(&anon_vma->root->lock);
	list_for_each_entry(avc, &anon_vma->head, same_anon_vma) {
		unsigned long address;

		if (!page_in_vma(page, avc->vma, &address))
			continue;
		ret = rmap_one(page, avc->vma, address, arg);
		if (ret != SWAP_AGAIN)
			break;
	}
	spin_unlock(&anon_vma->root->lock);
	return ret;
}
