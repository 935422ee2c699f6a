/*
 * TLB shoot-down (arch/x86/mm/tlb.c, 2.6.39). Each sender has a vector and a request of its own, so several can be
 * under way; a sender waits, with interrupts on, until every addressed CPU has taken itself out of the request's
 * mask.
 */
#ifdef CONFIG_SMP
#include <linux/mm.h>
#include <asm/apic.h>
#include <asm/ptrace.h>
#include <asm/tlbflush.h>

DEFINE_PER_CPU(struct tlb_state, cpu_tlbstate) = { .active_mm = &init_mm };

struct smp_flush_state {
	struct mm_struct *flush_mm;
	unsigned long flush_va;
	volatile unsigned long flush_cpumask;
} __aligned(64);

static struct smp_flush_state flush_state[NUM_INVALIDATE_TLB_VECTORS];

#define TLB_FLUSH_ALL (~0UL)

/* A kernel thread on a borrowed mm would rather lose it than be interrupted again. */
static void leave_mm(void)
{
	BUG_ON(percpu_read(cpu_tlbstate.state) == TLBSTATE_OK);
	clear_bit(smp_processor_id(), &percpu_read(cpu_tlbstate.active_mm)->cpu_vm_mask);
	write_cr3(__pa(swapper_pg_dir));
}

void smp_invalidate_interrupt(struct pt_regs *regs)
{
	unsigned cpu = smp_processor_id();
	unsigned sender = ~regs->orig_ax - INVALIDATE_TLB_VECTOR_START;
	struct smp_flush_state *f = &flush_state[sender];

	BUG_ON(sender >= NUM_INVALIDATE_TLB_VECTORS);
	if (test_bit(cpu, &f->flush_cpumask) && f->flush_mm == percpu_read(cpu_tlbstate.active_mm)) {
		if (percpu_read(cpu_tlbstate.state) != TLBSTATE_OK)
			leave_mm();
		else if (f->flush_va == TLB_FLUSH_ALL)
			__flush_tlb();
		else
			invlpg(f->flush_va);
	}
	ack_APIC_irq();
	clear_bit(cpu, &f->flush_cpumask);
}

/* Preemption is off. */
static void flush_tlb_others(unsigned long cpumask, struct mm_struct *mm, unsigned long va)
{
	unsigned sender = smp_processor_id();
	struct smp_flush_state *f = &flush_state[sender];

	f->flush_mm = mm;
	f->flush_va = va;
	f->flush_cpumask = cpumask;
	for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
		if (cpumask & (1UL << cpu))
			apic_send_ipi(cpu, APIC_DM_FIXED | (INVALIDATE_TLB_VECTOR_START + sender));
	}
	while (f->flush_cpumask)
		cpu_relax();
	f->flush_mm = NULL;
	f->flush_va = 0;
}

static void flush_tlb(struct mm_struct *mm, unsigned long va)
{
	preempt_disable();
	if (current->active_mm == mm) {
		if (!current->mm)
			leave_mm();
		else if (va == TLB_FLUSH_ALL)
			__flush_tlb();
		else
			invlpg(va);
	}
	unsigned long others = mm->cpu_vm_mask & ~(1UL << smp_processor_id());
	if (others)
		flush_tlb_others(others, mm, va);
	preempt_enable();
}

void flush_tlb_mm(struct mm_struct *mm)
{
	flush_tlb(mm, TLB_FLUSH_ALL);
}

void flush_tlb_page(struct vm_area_struct *vma, unsigned long address)
{
	flush_tlb(vma->vm_mm, address);
}
#endif
