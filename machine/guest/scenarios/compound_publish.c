/*
 * A tail page that says it is one before it says whose (668f9abbd433, 3.14): prep_compound_page() against somebody who
 * goes through memory page by page without holding any, as lumpy reclaim did up to 2.6.39 (d179e84ba5da). The tail's
 * first_page is still what an earlier compound page of twice the size has left there, so page_count() counts the
 * references of a page that the tail has nothing to do with.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define OLD_ORDER 4
#define NEW_ORDER (OLD_ORDER - 1)
#define NEW_PAGES (1UL << NEW_ORDER)

/* The pages that are made a compound page while they are being scanned. */
static struct page *compound;

static void allocate_main(void *argument)
{
	(void)argument;
	BUG_ON(alloc_pages(GFP_KERNEL | __GFP_COMP, NEW_ORDER) != compound);
}

static struct page *compound_head(struct page *page)
{
	if (unlikely(PageTail(page))) {
		struct page *head = page->first_page;
#ifdef CONFIG_FIX_668f9abbd433
		/* It may dangle: of use only if the page is still a tail. */
		smp_rmb();
		if (unlikely(!PageTail(page)))
			return page;
#endif
		return head;
	}
	return page;
}

/* What isolate_lru_pages() asks about the neighbours of a page that it has found: are they in use? */
static void scan_main(void *argument)
{
	(void)argument;
	for (struct page *page = compound; page < compound + NEW_PAGES; page++) {
		struct page *head = compound_head(page);

		/* That is page_count(). Without a reference to the page it may be old by now, but it must be that page's. */
		(void)atomic_read(&head->_count);
		if (head != page && head != compound)
			scenario_failed("page_count() of a tail page has followed a first_page that is not its head");
	}
}

/* Leaves the upper half of a block free and next in line, with tails that still point to the lower half. */
static void leave_stale_tails(void)
{
	struct page *old = alloc_pages(GFP_KERNEL | __GFP_COMP, OLD_ORDER), *page;

	BUG_ON(!old);
	put_page(old);
	do {
		page = alloc_pages(GFP_KERNEL, NEW_ORDER);
		BUG_ON(!page);
	} while (page != old);
	compound = old + NEW_PAGES;
	for (page = compound + 1; page < compound + NEW_PAGES; page++)
		BUG_ON(PageTail(page) || page->first_page != old);
}

void scenario_compound_publish(void)
{
	struct task_struct *allocator = make_task("allocate", 0, allocate_main, NULL);
	struct task_struct *scanner = make_task("scan", num_online_cpus() > 1 ? 1 : 0, scan_main, NULL);

	leave_stale_tails();
	setup_APIC_timer();
	trace_ready();

	wake_up_new_task(allocator);
	wake_up_new_task(scanner);
	wait_for_exit(allocator);
	wait_for_exit(scanner);
}
