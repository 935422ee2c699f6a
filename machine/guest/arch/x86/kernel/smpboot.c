/* Starting the other CPUs (arch/x86/kernel/smpboot.c, setup_percpu.c, 2.6.39). */
#ifdef CONFIG_SMP
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/desc.h>
#include <asm/ptrace.h>

#define TRAMPOLINE_PAGE 8U
#define PERCPU_UNIT_SIZE 8192

unsigned long __per_cpu_offset[NR_CPUS];
unsigned long stack_start;
#ifdef CONFIG_X86_64
extern unsigned long initial_gs;
#endif

static char percpu_units[NR_CPUS][PERCPU_UNIT_SIZE] __aligned(64);
static volatile unsigned long cpu_online_mask = 1;
static struct task_struct idle_task[NR_CPUS];
static union thread_union idle_stack[NR_CPUS] __aligned(THREAD_SIZE);

extern char trampoline_data[], trampoline_end[];

/* Every CPU gets a copy of the section as it was linked; until then CPU 0 has used the original. */
void setup_per_cpu_areas(void)
{
	unsigned long size = __per_cpu_end - __per_cpu_start;

	BUG_ON(size > PERCPU_UNIT_SIZE);
	for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
		memcpy(percpu_units[cpu], __per_cpu_start, size);
		__per_cpu_offset[cpu] = percpu_units[cpu] - __per_cpu_start;
	}
}

unsigned num_online_cpus(void)
{
	unsigned count = 0;

	for (unsigned long mask = cpu_online_mask; mask; mask &= mask - 1)
		count++;
	return count;
}

void start_secondary(void)
{
	cpu_init();
	percpu_write(current_task, current_thread_info()->task);
	setup_local_APIC();
	setup_APIC_timer();
	set_bit(smp_processor_id(), &cpu_online_mask);
	cpu_idle();
}

void smp_boot_cpus(unsigned count)
{
	memcpy(__va(TRAMPOLINE_PAGE << PAGE_SHIFT), trampoline_data, trampoline_end - trampoline_data);
	for (unsigned cpu = 1; cpu < count; cpu++) {
		struct task_struct *idle = &idle_task[cpu];

		idle->stack = &idle_stack[cpu].thread_info;
		init_idle(idle, cpu);
		stack_start = (unsigned long)idle->stack + THREAD_SIZE;
#ifdef CONFIG_X86_64
		initial_gs = __per_cpu_offset[cpu];
		per_cpu(kernel_stack, cpu) = stack_start - KERNEL_STACK_OFFSET;
#endif
		apic_send_ipi(cpu, APIC_DM_STARTUP | TRAMPOLINE_PAGE);
		while (!test_bit(cpu, &cpu_online_mask))
			cpu_relax();
	}
}

void smp_send_reschedule(int cpu)
{
	apic_send_ipi(cpu, APIC_DM_FIXED | RESCHEDULE_VECTOR);
}

/* The work happens on the way out: ret_from_intr sees TIF_NEED_RESCHED. */
void smp_reschedule_interrupt(struct pt_regs *regs)
{
	(void)regs;
	ack_APIC_irq();
	set_need_resched();
}
#endif
