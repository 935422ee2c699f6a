/*
 * thread_info lies at the bottom of each kernel stack (arch/x86/include/asm/thread_info.h, 2.6.39): esp finds it on
 * x86-32, a per-CPU pointer on x86-64.
 */
#ifndef ASM_THREAD_INFO_H
#define ASM_THREAD_INFO_H

#define THREAD_ORDER 1
#define THREAD_SIZE 8192

#define TIF_SIGPENDING 2
#define TIF_NEED_RESCHED 3
#define _TIF_NEED_RESCHED (1 << TIF_NEED_RESCHED)

/* Offsets for entry_32.S and entry_64.S, checked in kernel/sched.c. */
#ifdef CONFIG_X86_64
#define TI_FLAGS 8
#define TI_PREEMPT_COUNT 20
#define TASK_THREAD_SP 16
#else
#define TI_FLAGS 4
#define TI_PREEMPT_COUNT 12
#define TASK_THREAD_SP 8
#endif

/* kernel_stack points this far below a stack's top (x86-64): room for the frame that SYSCALL would have to push. */
#define KERNEL_STACK_OFFSET 40

/* preempt_count: bits 0..7 preemption, 16..25 hard interrupts, 28 "inside preempt_schedule". */
#define HARDIRQ_OFFSET 0x10000
#define PREEMPT_ACTIVE 0x10000000

#ifndef __ASSEMBLY__
#include <asm/bitops.h>
#include <asm/percpu.h>

struct task_struct;

struct thread_info {
	struct task_struct *task;
	unsigned long flags;
	int cpu;
	int preempt_count;
};

union thread_union {
	struct thread_info thread_info;
	unsigned long stack[THREAD_SIZE / sizeof(long)];
};

#ifdef CONFIG_X86_64
DECLARE_PER_CPU(unsigned long, kernel_stack);

static __always_inline struct thread_info *current_thread_info(void)
{
	return (struct thread_info *)(percpu_read_stable(kernel_stack) + KERNEL_STACK_OFFSET - THREAD_SIZE);
}
#else
static __always_inline struct thread_info *current_thread_info(void)
{
	unsigned long esp;

	asm("movl %%esp, %0" : "=r" (esp));
	return (struct thread_info *)(esp & ~(THREAD_SIZE - 1UL));
}
#endif

#define preempt_count() (current_thread_info()->preempt_count)
#define test_thread_flag(flag) test_bit(flag, &current_thread_info()->flags)
#define need_resched() unlikely(test_thread_flag(TIF_NEED_RESCHED))
#define set_need_resched() set_bit(TIF_NEED_RESCHED, &current_thread_info()->flags)
#endif

#endif
