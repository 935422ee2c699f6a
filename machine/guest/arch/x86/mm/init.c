/* How RAM divides, where mem_map lies, what the buddy allocator gets (arch/x86/mm/init.c, init_32.c, 2.6.39). */
#include <linux/mm.h>
#include <racetape/ports.h>

unsigned long max_low_pfn, max_pfn;

/* Memory taken before the page allocator runs: downwards from here, never given back. */
static unsigned long bootmem_top;

extern const struct boot_params *boot_params;
extern char _end[];

/* How the frames divide into lowmem and HighMem; "highmem=" forces some HighMem on small machines, as Linux does. */
void find_low_pfn_range(void)
{
#ifdef CONFIG_SMALL
	max_pfn = SMALL_END;
#ifdef CONFIG_HIGHMEM
	max_low_pfn = SMALL_NORMAL_END;
#else
	max_low_pfn = max_pfn;
#endif
	BUG_ON(boot_params->ram_bytes < max_pfn << PAGE_SHIFT);
	bootmem_top = ARCH_PFN_OFFSET << PAGE_SHIFT;
#else
	max_pfn = boot_params->ram_bytes >> PAGE_SHIFT;
#ifdef CONFIG_HIGHMEM
	char value[16];

	max_low_pfn = min(max_pfn, MAXMEM >> PAGE_SHIFT);
	if (parse_option("highmem", value, sizeof(value))) {
		unsigned long highmem_pages = memparse(value) >> PAGE_SHIFT;

		if (highmem_pages < max_low_pfn)
			max_low_pfn = min(max_low_pfn, max_pfn - highmem_pages);
	}
	/* Buddies must not straddle two zones. */
	max_low_pfn &= ~(MAX_ORDER_NR_PAGES - 1);
#else
	max_pfn &= ~(MAX_ORDER_NR_PAGES - 1);
	max_low_pfn = max_pfn;
#endif
	bootmem_top = max_low_pfn << PAGE_SHIFT;
#endif
}

void *alloc_bootmem(unsigned long size)
{
	bootmem_top -= PAGE_ALIGN(size);
	BUG_ON(bootmem_top < __pa(_end));
	return __va(bootmem_top);
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
