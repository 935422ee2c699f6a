/*
 * First instructions on x86-32: paging on, stack, C (arch/x86/kernel/head_32.S, 2.6.39). The machine starts us in
 * flat 32-bit protected mode (docs/platform.md).
 */
#include <asm/msr.h>
#include <asm/page.h>
#include <asm/processor-flags.h>
#include <asm/thread_info.h>

#define pa(symbol) ((symbol) - PAGE_OFFSET)

/* initial_page_table maps the first 8 MB twice: one to one, for the instructions right after, and at PAGE_OFFSET. */
.macro ENABLE_PAGING
#ifdef CONFIG_X86_PAE
	movl	$X86_CR4_PAE, %eax
	movl	%eax, %cr4
	/* NX, if there is such a thing: asked of CPUID, which destroys ebx, ecx and edx. */
	movl	$0x80000000, %eax
	cpuid
	cmpl	$0x80000001, %eax
	jb	2f
	movl	$0x80000001, %eax
	cpuid
	btl	$X86_FEATURE_NX_BIT, %edx
	jnc	2f
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_NX, %eax
	wrmsr
2:
#else
	movl	$X86_CR4_PSE, %eax
	movl	%eax, %cr4
#endif
	movl	$pa(initial_page_table), %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$(X86_CR0_PE | X86_CR0_WP | X86_CR0_PG), %eax
	movl	%eax, %cr0
	movl	$1f, %eax
	jmp	*%eax
1:
.endm

	.section .head.text, "ax"
	.globl startup_32
startup_32:
	cld
	ENABLE_PAGING
	movl	$init_thread_union + THREAD_SIZE, %esp
	xorl	%ebp, %ebp
	movl	%esi, %eax		/* physical address of boot_params */
	call	start_kernel
	ud2

#ifdef CONFIG_SMP
/* A further CPU arrives here from the trampoline; stack_start is the stack of its idle task. */
	.globl startup_32_smp
startup_32_smp:
	cld
	ENABLE_PAGING
	movl	$pa(swapper_pg_dir), %eax
	movl	%eax, %cr3
	movl	stack_start, %esp
	xorl	%ebp, %ebp
	call	start_secondary
	ud2

/* Copied to the page that the start-up IPI names. */
	.globl trampoline_data, trampoline_end
trampoline_data:
	movl	$pa(startup_32_smp), %eax
	jmp	*%eax
trampoline_end:
#endif

	.section .data.page_aligned, "aw"
	.balign 4096
	.globl initial_page_table
initial_page_table:
#ifdef CONFIG_X86_PAE
	.long	pa(initial_pg_pmd) + 0x001, 0, 0, 0, 0, 0, pa(initial_pg_pmd) + 0x001, 0
	.balign 4096
initial_pg_pmd:
	.quad	0x000000e3, 0x002000e3, 0x004000e3, 0x006000e3
	.fill	512 - 4, 8, 0
#else
	.long	0x000000e3, 0x004000e3
	.fill	(PAGE_OFFSET >> 22) - 2, 4, 0
	.long	0x000000e3, 0x004000e3
	.fill	1024 - (PAGE_OFFSET >> 22) - 2, 4, 0
#endif

	.section .note.GNU-stack, "", @progbits
