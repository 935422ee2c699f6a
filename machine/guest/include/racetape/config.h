/*
 * Compile-time configuration of the guest. The flavour decides the sizes of memory management's units:
 *
 *   linux  (default)       Linux's own constants
 *   small  (CONFIG_SMALL)  the same code with units so small that a whole run fits on a few pages of trace
 *
 * The architecture is x86-32 with 2-level page tables, with CONFIG_X86_PAE x86-32 with 3-level ones, or CONFIG_X86_64.
 * CONFIG_SMP selects the multiprocessor build, CONFIG_FIX_... and CONFIG_SEED_... the code variants.
 */
#ifndef RACETAPE_CONFIG_H
#define RACETAPE_CONFIG_H

#ifdef CONFIG_SMP
#define NR_CPUS 8
#else
#define NR_CPUS 1
#endif

#define HZ 100

/* x86-32 maps less than 1 GB for the kernel, so what is above that is HighMem; x86-64 maps everything. */
#ifndef CONFIG_X86_64
#define CONFIG_X86_32
#define CONFIG_HIGHMEM
#endif

#ifdef CONFIG_SMALL
#define MAX_ORDER 5
#define pageblock_order 4
#define HPAGE_PMD_ORDER 4
#define SWAP_CLUSTER_MAX 4UL
/*
 * x86-32: three zones in a row, above the kernel. HighMem starts on a 4 MB frame, as a huge pmd demands. x86-64: DMA
 * is the same, and all the rest is DMA32.
 */
#define ARCH_PFN_OFFSET 1712UL
#define SMALL_DMA_END 1792UL
#define SMALL_NORMAL_END 2048UL
#define SMALL_END 2096UL
#else
#define MAX_ORDER 11
/* A huge page is what one pmd maps, and a pageblock is a huge page: 4 MB or 2 MB. */
#if defined(CONFIG_X86_PAE) || defined(CONFIG_X86_64)
#define HPAGE_PMD_ORDER 9
#else
#define HPAGE_PMD_ORDER 10
#endif
#define pageblock_order HPAGE_PMD_ORDER
#define SWAP_CLUSTER_MAX 32UL
#define ARCH_PFN_OFFSET 0UL
#endif

/*
 * How much of each page of a huge page is cleared or copied: all of it at Linux's own sizes; a cache line in the small
 * flavour, where a "huge" page of 16 pages would otherwise be most of the recording. (RAM starts as zeros, and no scenario
 * looks beyond a page's first line.)
 */
#ifdef CONFIG_SMALL
#define HPAGE_TOUCHED_BYTES 64
#else
#define HPAGE_TOUCHED_BYTES PAGE_SIZE
#endif

#endif
