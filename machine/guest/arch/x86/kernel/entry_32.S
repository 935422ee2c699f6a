/* Exceptions, interrupts, context switch (arch/x86/kernel/entry_32.S, 2.6.39). Kernel mode only: no task has a ring 3. */
#include <asm/page.h>
#include <asm/thread_info.h>
#include <asm/irq_vectors.h>

#define PT_EFLAGS 56
#define PT_ORIG_EAX 44

.macro SAVE_ALL
	cld
	pushl	%gs
	pushl	%fs
	pushl	%es
	pushl	%ds
	pushl	%eax
	pushl	%ebp
	pushl	%edi
	pushl	%esi
	pushl	%edx
	pushl	%ecx
	pushl	%ebx
.endm

/* Handler(regs, error code, vector); the CPU pushed the error code, or `pushl $0` stands for it. */
.macro EXCEPTION vector, handler, has_code
	.globl exception_\vector
exception_\vector:
	.if !\has_code
	pushl	$0
	.endif
	SAVE_ALL
	movl	%esp, %eax
	movl	PT_ORIG_EAX(%esp), %edx
	movl	$\vector, %ecx
	call	\handler
	jmp	ret_from_intr
.endm

/* orig_ax becomes ~vector, as in Linux. */
.macro INTERRUPT_VECTOR vector, handler
	pushl	$~(\vector)
	SAVE_ALL
	movl	%esp, %eax
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
	iret

/* Back to what was interrupted; preempt it if it may be and somebody else should run. */
ret_from_intr:
	cli
	movl	$-THREAD_SIZE, %ebp
	andl	%esp, %ebp
	cmpl	$0, TI_PREEMPT_COUNT(%ebp)
	jnz	restore_all
need_resched:
	testb	$_TIF_NEED_RESCHED, TI_FLAGS(%ebp)
	jz	restore_all
	testl	$0x200, PT_EFLAGS(%esp)
	jz	restore_all
	call	preempt_schedule_irq
	jmp	need_resched
restore_all:
	popl	%ebx
	popl	%ecx
	popl	%edx
	popl	%esi
	popl	%edi
	popl	%ebp
	popl	%eax
	popl	%ds
	popl	%es
	popl	%fs
	popl	%gs
	addl	$4, %esp
	iret

/* struct task_struct *__switch_to_asm(prev, next): returns, on next's stack, the task that ran before. */
	.globl __switch_to_asm
__switch_to_asm:
	pushl	%ebp
	pushl	%ebx
	pushl	%esi
	pushl	%edi
	movl	%esp, TASK_THREAD_SP(%eax)
	movl	TASK_THREAD_SP(%edx), %esp
	popl	%edi
	popl	%esi
	popl	%ebx
	popl	%ebp
	jmp	__switch_to

/* A new task's first return from __switch_to_asm; eax = the task that ran before. */
	.globl ret_from_fork
ret_from_fork:
	call	schedule_tail
	call	task_start
	ud2

	.section .note.GNU-stack, "", @progbits
