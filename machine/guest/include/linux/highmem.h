/* Pages without an address of their own (include/linux/highmem.h, 2.6.39); without HighMem all pages have one. */
#ifndef LINUX_HIGHMEM_H
#define LINUX_HIGHMEM_H

#include <linux/mm.h>

#ifdef CONFIG_HIGHMEM
void *kmap_atomic(struct page *page);
void kunmap_atomic(void *address);
#else
static inline void *kmap_atomic(struct page *page)
{
	pagefault_disable();
	return page_address(page);
}

static inline void kunmap_atomic(void *address)
{
	(void)address;
	pagefault_enable();
}
#endif

static inline void clear_highpage_start(struct page *page, unsigned long size)
{
	void *address = kmap_atomic(page);

	clear_words(address, size);
	kunmap_atomic(address);
}

static inline void copy_highpage_start(struct page *to, struct page *from, unsigned long size)
{
	void *source = kmap_atomic(from);
	void *target = kmap_atomic(to);

	copy_words(target, source, size);
	kunmap_atomic(target);
	kunmap_atomic(source);
}

#define clear_highpage(page) clear_highpage_start(page, PAGE_SIZE)
#define copy_highpage(to, from) copy_highpage_start(to, from, PAGE_SIZE)

#endif
