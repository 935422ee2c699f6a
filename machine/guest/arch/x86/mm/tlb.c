/* TLB shootdown (arch/x86/mm/tlb.c, 2.6.39): one flush at a time, the sender waits for every addressed CPU. */
#ifdef CONFIG_SMP
#include <linux/mm.h>
#include <asm/apic.h>
#include <asm/ptrace.h>
#include <asm/tlbflush.h>

DEFINE_PER_CPU(struct tlb_state, cpu_tlbstate) = { .active_mm = &init_mm };

static DEFINE_SPINLOCK(tlbstate_lock);
static struct mm_struct *flush_mm;
static unsigned long flush_va;
static volatile unsigned long flush_cpumask;

#define TLB_FLUSH_ALL (~0UL)

/* A kernel thread on a borrowed mm would rather lose it than be interrupted again. */
static void leave_mm(void)
{
	clear_bit(smp_processor_id(), &__get_cpu_var(cpu_tlbstate).active_mm->cpu_vm_mask);
	write_cr3(__pa(swapper_pg_dir));
}

void smp_invalidate_interrupt(struct pt_regs *regs)
{
	unsigned cpu = smp_processor_id();

	(void)regs;
	if (test_bit(cpu, &flush_cpumask)) {
		if (percpu_read(cpu_tlbstate.active_mm) == flush_mm) {
			if (percpu_read(cpu_tlbstate.state) == TLBSTATE_LAZY)
				leave_mm();
			else if (flush_va == TLB_FLUSH_ALL)
				__flush_tlb();
			else
				invlpg(flush_va);
		}
	}
	ack_APIC_irq();
	clear_bit(cpu, &flush_cpumask);
}

static void flush_tlb_others(unsigned long cpumask, struct mm_struct *mm, unsigned long va)
{
	spin_lock(&tlbstate_lock);
	flush_mm = mm;
	flush_va = va;
	flush_cpumask = cpumask;
	smp_mb();
	for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
		if (cpumask & (1UL << cpu))
			apic_send_ipi(cpu, APIC_DM_FIXED | INVALIDATE_TLB_VECTOR);
	}
	while (flush_cpumask)
		cpu_relax();
	flush_mm = NULL;
	spin_unlock(&tlbstate_lock);
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
