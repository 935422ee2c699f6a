/* The local APIC and its timer (arch/x86/kernel/apic/apic.c, 2.6.39). */
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/ptrace.h>

void apic_map(void)
{
	set_fixmap(FIX_APIC_BASE, APIC_DEFAULT_PHYS_BASE, PAGE_KERNEL | _PAGE_PCD);
}

void setup_local_APIC(void)
{
	apic_write(APIC_TASKPRI, 0);
	apic_write(APIC_SPIV, APIC_SPIV_APIC_ENABLED | SPURIOUS_APIC_VECTOR);
	apic_write(APIC_LVTT, APIC_LVT_MASKED | LOCAL_TIMER_VECTOR);
}

/* From now on the schedule may tick this CPU. The machine has no time, so the count is only "non-zero". */
void setup_APIC_timer(void)
{
	apic_write(APIC_LVTT, LOCAL_TIMER_VECTOR);
	apic_write(APIC_TMICT, 1);
}

void apic_send_ipi(unsigned cpu, u32 mode_and_vector)
{
	unsigned long flags;

	/* Two writes make one IPI: an interrupt handler must not send its own in between. */
	local_irq_save(flags);
	apic_write(APIC_ICR2, cpu << 24);
	apic_write(APIC_ICR, mode_and_vector);
	local_irq_restore(flags);
}

void smp_apic_timer_interrupt(struct pt_regs *regs)
{
	(void)regs;
	ack_APIC_irq();
	preempt_count() += HARDIRQ_OFFSET;
	do_timer();
	scheduler_tick();
	preempt_count() -= HARDIRQ_OFFSET;
}
