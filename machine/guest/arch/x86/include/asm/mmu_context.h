/* Switching address spaces (arch/x86/include/asm/mmu_context.h, 2.6.39). */
#ifndef ASM_MMU_CONTEXT_H
#define ASM_MMU_CONTEXT_H

#include <racetape/tracepoint.h>
#include <asm/tlbflush.h>

static inline void switch_mm(struct mm_struct *prev, struct mm_struct *next)
{
#ifdef CONFIG_SMP
	unsigned cpu = smp_processor_id();

	if (prev == next) {
		percpu_write(cpu_tlbstate.state, TLBSTATE_OK);
		/* A flush IPI during lazy mode may have removed us: then the TLB is stale. */
		if (!test_and_set_bit(cpu, &next->cpu_vm_mask))
			write_cr3(__pa(next->pgd));
		return;
	}
	percpu_write(cpu_tlbstate.state, TLBSTATE_OK);
	percpu_write(cpu_tlbstate.active_mm, next);
	set_bit(cpu, &next->cpu_vm_mask);
	write_cr3(__pa(next->pgd));
	clear_bit(cpu, &prev->cpu_vm_mask);
#else
	if (prev == next)
		return;
	write_cr3(__pa(next->pgd));
#endif
	trace_mm_switch(prev, next);
}

static inline void enter_lazy_tlb(void)
{
#ifdef CONFIG_SMP
	if (percpu_read(cpu_tlbstate.state) == TLBSTATE_OK)
		percpu_write(cpu_tlbstate.state, TLBSTATE_LAZY);
#endif
}

#endif
