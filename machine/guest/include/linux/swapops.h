/* Migration entries: swap entries of two types past the real ones, the offset being the page's pfn. */
#ifndef LINUX_SWAPOPS_H
#define LINUX_SWAPOPS_H

#include <linux/mm.h>

#define SWP_MIGRATION_READ 30
#define SWP_MIGRATION_WRITE 31

static inline bool is_swap_pte(pte_t pte)
{
	return !pte_none(pte) && !pte_present(pte);
}

static inline bool is_migration_pte(pte_t pte)
{
	return is_swap_pte(pte) && SWP_TYPE(pte_val(pte)) >= SWP_MIGRATION_READ;
}

static inline bool is_write_migration_pte(pte_t pte)
{
	return is_swap_pte(pte) && SWP_TYPE(pte_val(pte)) == SWP_MIGRATION_WRITE;
}

static inline pte_t make_migration_pte(struct page *page, bool write)
{
	return __pte(SWP_ENTRY(write ? SWP_MIGRATION_WRITE : SWP_MIGRATION_READ, page_to_pfn(page)));
}

static inline struct page *migration_pte_to_page(pte_t pte)
{
	struct page *page = pfn_to_page(SWP_OFFSET(pte_val(pte)));

	/* A migration entry stands only while its page is locked. */
	VM_BUG_ON(!PageLocked(page));
	return page;
}

#endif
