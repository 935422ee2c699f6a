/*
 * Pages on their way out of an address space (asm-generic/tlb.h, 2.6.39). On SMP they are collected, then every CPU's
 * TLB is flushed, then they are freed: no TLB ever translates to a free page. With one CPU ("fast mode") they are
 * freed at once and the flush comes last, as nobody can use the stale entries in between. Preemption is off from
 * gather to finish.
 */
#ifndef ASM_GENERIC_TLB_H
#define ASM_GENERIC_TLB_H

#include <linux/mm.h>
#include <asm/tlbflush.h>

#ifndef CONFIG_SMP
#define FREE_PTE_NR 1
#elif defined(CONFIG_SMALL)
#define FREE_PTE_NR 14
#else
#define FREE_PTE_NR 506
#endif

struct mmu_gather {
	struct mm_struct *mm;
	unsigned nr;		/* of pages[]; ~0: fast mode */
	bool need_flush;
	bool fullmm;		/* the whole address space goes */
	struct page *pages[FREE_PTE_NR];
};

#define tlb_fast_mode(tlb) ((tlb)->nr == ~0U)

struct mmu_gather *tlb_gather_mmu(struct mm_struct *mm, bool fullmm);
void tlb_flush_mmu(struct mmu_gather *tlb);
void tlb_finish_mmu(struct mmu_gather *tlb);
/* Takes over one reference. */
void tlb_remove_page(struct mmu_gather *tlb, struct page *page);

#endif
