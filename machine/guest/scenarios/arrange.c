/*
 * Arranging memory before `ready`: take ALL of a zone, then give single pages a role and free chosen ranges. What stays
 * taken plays the kernel's own unmovable memory.
 */
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <racetape/ports.h>
#include <racetape/scenario.h>

/* Blocks taken, by their first page; page->private is the order. */
static LIST_HEAD(hogged);

static void hog_add(struct page *page, unsigned order)
{
	set_page_private(page, order);
	list_add(&page->lru, &hogged);
}

/* Where processes get their pages from first: HighMem, or on x86-64 the topmost zone that has any. */
struct zone *user_zone(void)
{
	struct zone *zone = &contig_page_data.node_zones[MAX_NR_ZONES - 1];

	while (!zone->present_pages)
		zone--;
	return zone;
}

/* Zones must be taken from the lowest up: requests fall back downwards. */
void hog_zone(enum zone_type type)
{
#ifdef CONFIG_X86_64
	static const gfp_t gfp[MAX_NR_ZONES] = { __GFP_DMA, __GFP_DMA32, 0 };
#else
	static const gfp_t gfp[MAX_NR_ZONES] = { __GFP_DMA, 0, __GFP_HIGHMEM };
#endif

	drain_pages(get_cpu());
	put_cpu();
	/* No watermark may stop us, and movable: the pageblocks must not change their type. */
	current->flags |= PF_MEMALLOC;
	for (int order = MAX_ORDER - 1; order >= 0; order--) {
		struct page *page;

		while ((page = alloc_pages(gfp[type] | __GFP_MOVABLE, order)) != NULL)
			hog_add(page, order);
	}
	current->flags &= ~PF_MEMALLOC;
}

static struct page *hog_find(unsigned long pfn)
{
	struct page *page;

	list_for_each_entry(page, &hogged, lru) {
		if (pfn >= page_to_pfn(page) && pfn < page_to_pfn(page) + (1UL << page_private(page)))
			return page;
	}
	return NULL;
}

/* Hand out the page `pfn`, with one reference; its block falls into halves around it. */
struct page *hog_take(unsigned long pfn)
{
	struct page *page = hog_find(pfn);

	BUG_ON(!page);
	unsigned order = page_private(page);
	list_del(&page->lru);
	while (order--) {
		struct page *half = page + (1UL << order);

		init_page_count(half);
		if (pfn >= page_to_pfn(half)) {
			hog_add(page, order);
			page = half;
		} else {
			hog_add(half, order);
		}
	}
	set_page_private(page, 0);
	return page;
}

/* Halve the taken block around `pfn` until one begins there. */
static void hog_split(unsigned long pfn)
{
	struct page *page = hog_find(pfn);

	while (page && page_to_pfn(page) != pfn) {
		unsigned order = page_private(page) - 1;
		struct page *half = page + (1UL << order);

		set_page_private(page, order);
		init_page_count(half);
		hog_add(half, order);
		if (pfn >= page_to_pfn(half))
			page = half;
	}
}

/* Free what is taken of [start_pfn, end_pfn). */
void hog_release(unsigned long start_pfn, unsigned long end_pfn)
{
	struct page *page, *next;

	hog_split(start_pfn);
	hog_split(end_pfn);
	list_for_each_entry_safe(page, next, &hogged, lru) {
		unsigned order = page_private(page);

		if (page_to_pfn(page) < start_pfn || page_to_pfn(page) + (1UL << order) > end_pfn)
			continue;
		list_del(&page->lru);
		set_page_private(page, 0);
		__free_pages(page, order);
	}
	drain_pages(get_cpu());
	put_cpu();
}

/* A page of somebody's file, or of somebody's memory: all that accounting asks is PageSwapBacked. */
void make_lru_page(struct page *page, enum lru_list lru)
{
	if (!is_file_lru(lru))
		SetPageSwapBacked(page);
	__lru_cache_add(page, lru);
	lru_add_drain();
}

/*
 * A huge page, with one reference. In the small flavour few blocks lie where a huge entry can map them: take blocks until
 * one does, and give all others back.
 */
struct page *take_huge_frame(void)
{
	struct page *page, *other, *next;
	LIST_HEAD(taken);

	current->flags |= PF_MEMALLOC;	/* all there are */
	for (;;) {
		page = alloc_pages(GFP_HIGHUSER_MOVABLE | __GFP_COMP, HPAGE_PMD_ORDER);
		BUG_ON(!page);
		if (page_to_pfn(page) % (PMD_SIZE >> PAGE_SHIFT) == 0)
			break;
		list_add_tail(&page->lru, &taken);
	}
	current->flags &= ~PF_MEMALLOC;
	list_for_each_entry_safe(other, next, &taken, lru) {
		list_del(&other->lru);
		put_page(other);
	}
	return page;
}

struct task_struct *make_task(const char *name, int cpu, void (*entry)(void *), void *argument)
{
	struct task_struct *task = do_fork(name, cpu, 0, entry, argument);

	BUG_ON(!task);
	return task;
}

/* The page behind an address, with a reference; NULL if none is mapped now (follow_page() in Linux). */
struct page *find_get_mapped(unsigned long address)
{
	struct mm_struct *mm = current->mm;
	pmd_t *pmd = mm_find_pmd(mm, address);
	struct page *page = NULL;
	spinlock_t *ptl;

	if (!pmd || pmd_none(*pmd))
		return NULL;
	pte_t *pte = pte_offset_map_lock(mm, pmd, address, &ptl);
	if (pte_present(*pte)) {
		page = pte_page(*pte);
		get_page(page);
	}
	pte_unmap_unlock(pte, ptl);
	return page;
}

/* For a scenario's last look at what its threads have done: ends the run as a BUG() does, but in words. */
void scenario_failed(const char *what)
{
	printk("BUG: ");
	printk(what);
	printk("\n");
	machine_exit(EXIT_BUG);
	__builtin_unreachable();
}
