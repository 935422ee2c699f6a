/* Migration entries: swap entries of two types past the real ones, the offset being the page's pfn. */
#ifndef LINUX_SWAPOPS_H
#define LINUX_SWAPOPS_H

#include <linux/mm.h>

typedef struct { unsigned long val; } swp_entry_t;

#define SWP_MIGRATION_READ 30UL
#define SWP_MIGRATION_WRITE 31UL

static inline bool is_swap_pte(pte_t pte)
{
	return !pte_none(pte) && !pte_present(pte);
}

static inline bool is_migration_pte(pte_t pte)
{
	return is_swap_pte(pte) && __swp_type(__pte_to_swp_entry(pte)) >= SWP_MIGRATION_READ;
}

static inline bool is_write_migration_pte(pte_t pte)
{
	return is_swap_pte(pte) && __swp_type(__pte_to_swp_entry(pte)) == SWP_MIGRATION_WRITE;
}

static inline pte_t make_migration_pte(struct page *page, bool write)
{
	swp_entry_t entry = __swp_entry(write ? SWP_MIGRATION_WRITE : SWP_MIGRATION_READ, page_to_pfn(page));

	return __swp_entry_to_pte(entry);
}

static inline pte_t make_migration_pte_read(pte_t pte)
{
	swp_entry_t entry = __swp_entry(SWP_MIGRATION_READ, __swp_offset(__pte_to_swp_entry(pte)));

	return __swp_entry_to_pte(entry);
}

static inline struct page *migration_pte_to_page(pte_t pte)
{
	struct page *page = pfn_to_page(__swp_offset(__pte_to_swp_entry(pte)));

	/* A migration entry stands only while its page is locked. */
	VM_BUG_ON(!PageLocked(page));
	return page;
}

#endif
