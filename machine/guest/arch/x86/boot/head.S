/* First instructions: paging on, stack, C. The machine starts us in flat 32-bit protected mode (docs/platform.md). */
#include <asm/page.h>
#include <asm/thread_info.h>

#define CR0_PE_WP_PG 0x80010001
#define CR4_PSE 0x10
#define pa(symbol) ((symbol) - PAGE_OFFSET)

/* initial_page_table maps the first 8 MB twice: one to one, for the instructions right after, and at PAGE_OFFSET. */
.macro ENABLE_PAGING
	movl	$CR4_PSE, %eax
	movl	%eax, %cr4
	movl	$pa(initial_page_table), %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$CR0_PE_WP_PG, %eax
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
	.long	0x000000e3, 0x004000e3
	.fill	(PAGE_OFFSET >> 22) - 2, 4, 0
	.long	0x000000e3, 0x004000e3
	.fill	1024 - (PAGE_OFFSET >> 22) - 2, 4, 0

	.section .note.GNU-stack, "", @progbits
