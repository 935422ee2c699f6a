/* Kernel page tables of x86-32, 2-level and PAE (arch/x86/mm/init_32.c, 2.6.39). */
#include <linux/mm.h>
#include <asm/apic.h>
#include <asm/processor-flags.h>

pgd_t swapper_pg_dir[PTRS_PER_PGD] __section(".bss.page_aligned") __aligned(4096);
pte_t fixmap_page_table[PTRS_PER_PTE] __section(".bss.page_aligned") __aligned(4096);

extern char _end[];

#ifdef CONFIG_X86_PAE
/* Of the fourth gigabyte, the kernel's: all address spaces share it (SHARED_KERNEL_PMD). */
static pmd_t swapper_pg_pmd[PTRS_PER_PMD] __section(".bss.page_aligned") __aligned(4096);

static void page_table_range_init(void)
{
	pud_t *pud = pud_offset(swapper_pg_dir + KERNEL_PGD_BOUNDARY, PAGE_OFFSET);

	set_pud(pud, __pud(__pa(swapper_pg_pmd) | _PAGE_PRESENT));
}
#else
static void page_table_range_init(void) { }
#endif

static pmd_t *kernel_pmd(unsigned long address)
{
	return pmd_offset(pud_offset(swapper_pg_dir + pgd_index(address), address), address);
}

/* Lowmem by 4 or 2 MB pages, of which those with the kernel in them are executable, and the fixmap's page table. */
void paging_init(void)
{
	find_low_pfn_range();
	page_table_range_init();
	for (unsigned long pfn = 0; pfn < max_low_pfn; pfn += PTRS_PER_PTE) {
		pteval_t prot = pfn << PAGE_SHIFT < __pa(_end) ? PAGE_KERNEL_EXEC : PAGE_KERNEL;

		set_pmd(kernel_pmd((unsigned long)__va(pfn << PAGE_SHIFT)), pfn_pmd(pfn, prot | _PAGE_PSE));
	}
	set_pmd(kernel_pmd(FIXADDR_TOP), __pmd(__pa(fixmap_page_table) | _PAGE_TABLE));
	write_cr3(__pa(swapper_pg_dir));
	apic_map();
	free_area_init();
}
