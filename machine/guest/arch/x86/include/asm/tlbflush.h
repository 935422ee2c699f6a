/*
 * TLB maintenance (arch/x86/include/asm/tlbflush.h, 2.6.39). UP flushes only if the mm is the one loaded. SMP sends an
 * IPI to the other CPUs of mm_cpumask and waits; a range is flushed as a whole mm.
 */
#ifndef ASM_TLBFLUSH_H
#define ASM_TLBFLUSH_H

#include <linux/sched.h>
#include <asm/pgtable.h>

static inline void __flush_tlb(void)
{
	write_cr3(read_cr3());
}

#ifdef CONFIG_SMP
void flush_tlb_mm(struct mm_struct *mm);
void flush_tlb_page(struct vm_area_struct *vma, unsigned long address);

#define TLBSTATE_OK 1
#define TLBSTATE_LAZY 2

struct tlb_state {
	struct mm_struct *active_mm;
	int state;
};
DECLARE_PER_CPU(struct tlb_state, cpu_tlbstate);
#else
static inline void flush_tlb_mm(struct mm_struct *mm)
{
	if (mm == current->active_mm)
		__flush_tlb();
}

static inline void flush_tlb_page(struct vm_area_struct *vma, unsigned long address)
{
	if (vma->vm_mm == current->active_mm)
		invlpg(address);
}
#endif

#define flush_tlb_range(vma, start, end) flush_tlb_mm((vma)->vm_mm)

#endif
