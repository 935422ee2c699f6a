/* The processor side of a context switch (arch/x86/kernel/process_32.c, 2.6.39). */
#include <linux/sched.h>
#include <asm/desc.h>

DECLARE_PER_CPU(struct tss_struct, init_tss);

struct task_struct *__switch_to(struct task_struct *prev, struct task_struct *next)
{
	struct tss_struct *tss = &__get_cpu_var(init_tss);

	tss->sp0 = (u32)next->stack + THREAD_SIZE;
	percpu_write(current_task, next);
	return prev;
}
