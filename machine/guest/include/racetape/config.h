/*
 * Compile-time configuration of the guest. The flavour decides the sizes of memory management's units:
 *
 *   linux  (default)       Linux's own x86-32 constants, 2-level paging
 *   small  (CONFIG_SMALL)  the same code with units so small that a whole run fits on a few pages of trace
 *
 * CONFIG_SMP selects the multiprocessor build, CONFIG_FIX_7454f4ba40b4 and CONFIG_SEED_WMB the code variants.
 */
#ifndef RACETAPE_CONFIG_H
#define RACETAPE_CONFIG_H

#ifdef CONFIG_SMP
#define NR_CPUS 8
#else
#define NR_CPUS 1
#endif

#define HZ 100

#ifdef CONFIG_SMALL
#define MAX_ORDER 5
#define pageblock_order 4
#define HPAGE_PMD_ORDER 4
#define SWAP_CLUSTER_MAX 4UL
/* Three zones in a row, above the kernel. HighMem starts on a 4 MB frame, as a huge pmd demands. */
#define ARCH_PFN_OFFSET 1712UL
#define SMALL_DMA_END 1792UL
#define SMALL_NORMAL_END 2048UL
#define SMALL_HIGHMEM_END 2096UL
#else
#define MAX_ORDER 11
#define pageblock_order 10
#define HPAGE_PMD_ORDER 10
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
