/* Kernel page tables of x86-64 (arch/x86/mm/init_64.c, 2.6.39). */
#include <linux/mm.h>
#include <asm/apic.h>

#define DIRECT_GIGABYTES 3	/* no machine has more RAM: docs/platform.md */

#define PAGE_TABLE(type, name) type name __section(".bss.page_aligned") __aligned(4096)

PAGE_TABLE(pgd_t, init_level4_pgt[PTRS_PER_PGD]);
static PAGE_TABLE(pud_t, level3_direct_pgt[PTRS_PER_PUD]);
static PAGE_TABLE(pud_t, level3_kernel_pgt[PTRS_PER_PUD]);
static PAGE_TABLE(pmd_t, level2_direct_pgt[DIRECT_GIGABYTES][PTRS_PER_PMD]);
static PAGE_TABLE(pmd_t, level2_kernel_pgt[PTRS_PER_PMD]);
static PAGE_TABLE(pmd_t, level2_fixmap_pgt[PTRS_PER_PMD]);
PAGE_TABLE(pte_t, fixmap_page_table[PTRS_PER_PTE]);

extern char _end[];

static pgd_t table_pgd(const void *table) { return __pgd(__pa(table) | _KERNPG_TABLE); }
static pud_t table_pud(const void *table) { return __pud(__pa(table) | _KERNPG_TABLE); }

/* All of RAM, never executable. */
static void kernel_physical_mapping_init(void)
{
	BUG_ON(max_pfn << PAGE_SHIFT > DIRECT_GIGABYTES * PUD_SIZE);
	for (unsigned i = 0; i < DIRECT_GIGABYTES; i++)
		set_pud(&level3_direct_pgt[i], table_pud(level2_direct_pgt[i]));
	for (unsigned long pfn = 0; pfn < max_pfn; pfn += PTRS_PER_PTE)
		set_pmd(&level2_direct_pgt[0][pfn / PTRS_PER_PTE], pfn_pmd(pfn, PAGE_KERNEL | _PAGE_PSE));
	set_pgd(&init_level4_pgt[pgd_index(PAGE_OFFSET)], table_pgd(level3_direct_pgt));
}

/* The kernel a second time where it is linked, and the fixmap. */
static void kernel_text_mapping_init(void)
{
	for (unsigned long phys = 0; phys < __pa(_end); phys += PMD_SIZE)
		set_pmd(&level2_kernel_pgt[phys / PMD_SIZE], pfn_pmd(phys >> PAGE_SHIFT, PAGE_KERNEL_EXEC | _PAGE_PSE));
	set_pmd(&level2_fixmap_pgt[pmd_index(FIXADDR_TOP)], __pmd(__pa(fixmap_page_table) | _KERNPG_TABLE));
	set_pud(&level3_kernel_pgt[pud_index(__START_KERNEL_map)], table_pud(level2_kernel_pgt));
	set_pud(&level3_kernel_pgt[pud_index(FIXADDR_TOP)], table_pud(level2_fixmap_pgt));
	set_pgd(&init_level4_pgt[pgd_index(__START_KERNEL_map)], table_pgd(level3_kernel_pgt));
}

void paging_init(void)
{
	find_low_pfn_range();
	kernel_physical_mapping_init();
	kernel_text_mapping_init();
	write_cr3(__pa(init_level4_pgt));
	apic_map();
	free_area_init();
}
