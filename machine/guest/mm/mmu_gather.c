/* Flush before free (asm-generic/tlb.h, 2.6.39; there in a header). */
#include <linux/swap.h>
#include <asm-generic/tlb.h>

static DEFINE_PER_CPU(struct mmu_gather, mmu_gathers);

struct mmu_gather *tlb_gather_mmu(struct mm_struct *mm, bool fullmm)
{
	preempt_disable();
	struct mmu_gather *tlb = &__get_cpu_var(mmu_gathers);
	tlb->mm = mm;
	tlb->nr = num_online_cpus() > 1 ? 0U : ~0U;
	tlb->fullmm = fullmm;
	return tlb;
}

void tlb_flush_mmu(struct mmu_gather *tlb)
{
	if (!tlb->need_flush)
		return;
	tlb->need_flush = false;
	flush_tlb_mm(tlb->mm);
	if (!tlb_fast_mode(tlb)) {
		release_pages(tlb->pages, tlb->nr);
		tlb->nr = 0;
	}
}

void tlb_finish_mmu(struct mmu_gather *tlb)
{
	tlb_flush_mmu(tlb);
	preempt_enable();
}

void tlb_remove_page(struct mmu_gather *tlb, struct page *page)
{
	tlb->need_flush = true;
	if (tlb_fast_mode(tlb)) {
		put_page(page);
		return;
	}
	tlb->pages[tlb->nr++] = page;
	if (tlb->nr >= FREE_PTE_NR)
		tlb_flush_mmu(tlb);
}
