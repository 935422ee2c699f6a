/* Kernel page tables, where mem_map lies, handing memory to the buddy allocator (arch/x86/mm/init_32.c, 2.6.39). */
#include <linux/mm.h>
#include <asm/apic.h>
#include <racetape/ports.h>

pmd_t swapper_pg_dir[PTRS_PER_PGD] __section(".bss.page_aligned") __aligned(4096);
pte_t fixmap_page_table[PTRS_PER_PTE] __section(".bss.page_aligned") __aligned(4096);

unsigned long max_low_pfn, max_pfn;

/* Memory taken before the page allocator runs: downwards from here, never given back. */
static unsigned long bootmem_top;

extern const struct boot_params *boot_params;
extern char _end[];

/* How the frames divide into lowmem and HighMem; "highmem=" forces some HighMem on small machines, as Linux does. */
static void find_low_pfn_range(void)
{
#ifdef CONFIG_SMALL
	max_low_pfn = SMALL_NORMAL_END;
	max_pfn = SMALL_HIGHMEM_END;
	BUG_ON(boot_params->ram_bytes < max_pfn << PAGE_SHIFT);
	bootmem_top = ARCH_PFN_OFFSET << PAGE_SHIFT;
#else
	char value[16];

	max_pfn = boot_params->ram_bytes >> PAGE_SHIFT;
	max_low_pfn = min(max_pfn, MAXMEM >> PAGE_SHIFT);
	if (parse_option("highmem", value, sizeof(value))) {
		unsigned long highmem_pages = memparse(value) >> PAGE_SHIFT;

		if (highmem_pages < max_low_pfn)
			max_low_pfn = min(max_low_pfn, max_pfn - highmem_pages);
	}
	/* Buddies must not straddle two zones. */
	max_low_pfn &= ~(MAX_ORDER_NR_PAGES - 1);
	bootmem_top = max_low_pfn << PAGE_SHIFT;
#endif
}

void *alloc_bootmem(unsigned long size)
{
	bootmem_top -= PAGE_ALIGN(size);
	BUG_ON(bootmem_top < __pa(_end));
	return __va(bootmem_top);
}

/* Lowmem by 4 MB pages, and the one page table of the top 4 MB. */
void paging_init(void)
{
	find_low_pfn_range();
	for (unsigned long pfn = 0; pfn < max_low_pfn; pfn += PTRS_PER_PTE) {
		pmd_t *pmd = swapper_pg_dir + pgd_index((unsigned long)__va(pfn << PAGE_SHIFT));

		set_pmd(pmd, pfn_pmd(pfn, PAGE_KERNEL | _PAGE_PSE));
	}
	set_pmd(swapper_pg_dir + pgd_index(FIXADDR_TOP), __pmd(__pa(fixmap_page_table) | _PAGE_TABLE));
	write_cr3(__pa(swapper_pg_dir));
	apic_map();
	free_area_init();
}

/* Free [pfn, end) in the largest aligned blocks, upwards: the highest block is then the first to be handed out. */
static void free_bootmem_range(unsigned long pfn, unsigned long end)
{
	while (pfn < end) {
		unsigned order = pfn ? min(__ffs(pfn), (unsigned)MAX_ORDER - 1) : MAX_ORDER - 1;

		while (pfn + (1UL << order) > end)
			order--;
		for (unsigned long i = 0; i < 1UL << order; i++) {
			__ClearPageReserved(pfn_to_page(pfn + i));
			atomic_set(&pfn_to_page(pfn + i)->_count, 0);
		}
		__free_pages_ok(pfn_to_page(pfn), order);
		pfn += 1UL << order;
	}
}

void mem_init(void)
{
#ifdef CONFIG_SMALL
	free_bootmem_range(ARCH_PFN_OFFSET, max_low_pfn);
#else
	/* Everything below the kernel's end stays reserved, as does what was taken from the top of lowmem. */
	free_bootmem_range(__pa(_end) >> PAGE_SHIFT, bootmem_top >> PAGE_SHIFT);
#endif
	free_bootmem_range(max_low_pfn, max_pfn);
}

pgd_t *pgd_alloc(void)
{
	pgd_t *pgd = (pgd_t *)__get_free_pages(GFP_KERNEL, 0);

	if (!pgd)
		return NULL;
	clear_words(pgd, KERNEL_PGD_BOUNDARY * sizeof(pgd_t));
	/* The kernel's part never changes after boot: all directories share its tables. */
	copy_words(pgd + KERNEL_PGD_BOUNDARY, swapper_pg_dir + KERNEL_PGD_BOUNDARY,
		   (PTRS_PER_PGD - KERNEL_PGD_BOUNDARY) * sizeof(pgd_t));
	return pgd;
}

void pgd_free(pgd_t *pgd)
{
	free_pages((unsigned long)pgd, 0);
}
