/* Exceptions, interrupts, context switch (arch/x86/kernel/entry_64.S, 2.6.39). Kernel mode only: never a SWAPGS. */
#include <asm/page.h>
#include <asm/thread_info.h>
#include <asm/irq_vectors.h>

#define PT_ORIG_RAX 120
#define PT_EFLAGS 144

.macro SAVE_ALL
	cld
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
.endm

/* Handler(regs, error code, vector); the CPU pushed the error code, or `pushq $0` stands for it. */
.macro EXCEPTION vector, handler, has_code
	.globl exception_\vector
exception_\vector:
	.if !\has_code
	pushq	$0
	.endif
	SAVE_ALL
	movq	%rsp, %rdi
	movq	PT_ORIG_RAX(%rsp), %rsi
	movl	$\vector, %edx
	call	\handler
	jmp	ret_from_intr
.endm

/* orig_ax becomes ~vector, as in Linux. */
.macro INTERRUPT_VECTOR vector, handler
	pushq	$~(\vector)
	SAVE_ALL
	movq	%rsp, %rdi
	call	\handler
	jmp	ret_from_intr
.endm

.macro INTERRUPT name, vector
	.globl \name
\name:
	INTERRUPT_VECTOR \vector, smp_\name
.endm

	.text
#include "entry_vectors.h"

	.globl spurious_interrupt
spurious_interrupt:
	iretq

/* Back to what was interrupted; preempt it if it may be and somebody else should run. */
ret_from_intr:
	cli
	movq	%rsp, %rbp
	andq	$-THREAD_SIZE, %rbp
	cmpl	$0, TI_PREEMPT_COUNT(%rbp)
	jnz	restore_all
need_resched:
	testb	$_TIF_NEED_RESCHED, TI_FLAGS(%rbp)
	jz	restore_all
	testl	$0x200, PT_EFLAGS(%rsp)
	jz	restore_all
	call	preempt_schedule_irq
	jmp	need_resched
restore_all:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	addq	$8, %rsp
	iretq

/* struct task_struct *__switch_to_asm(prev, next): returns, on next's stack, the task that ran before. */
	.globl __switch_to_asm
__switch_to_asm:
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, TASK_THREAD_SP(%rdi)
	movq	TASK_THREAD_SP(%rsi), %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	jmp	__switch_to

/* A new task's first return from __switch_to_asm; rax = the task that ran before. */
	.globl ret_from_fork
ret_from_fork:
	movq	%rax, %rdi
	call	schedule_tail
	call	task_start
	ud2

	.section .note.GNU-stack, "", @progbits
