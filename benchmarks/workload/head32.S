/* First instructions, as the guest's: 4 MB pages one to one and at PAGE_OFFSET, then C. %esi = boot_params. */
#define PAGE_OFFSET 0xc0000000
#define RAM_PAGES 16		/* of 4 MB */
#define pa(symbol) ((symbol) - PAGE_OFFSET)

.macro enable_paging
	movl	$0x10, %eax			/* PSE */
	movl	%eax, %cr4
	movl	$pa(page_directory), %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80010001, %eax		/* PG, WP, PE */
	movl	%eax, %cr0
	movl	$1f, %eax
	jmp	*%eax
1:
.endm

	.section .head.text, "ax"
	.globl startup
startup:
	cld
	enable_paging
	movl	$stack_end, %esp
	xorl	%ebp, %ebp
	leal	PAGE_OFFSET(%esi), %eax
	call	start_kernel
	ud2

#ifdef CONFIG_SMP
startup_secondary:
	cld
	enable_paging
	movl	$stack_end_secondary, %esp
	xorl	%ebp, %ebp
	call	start_secondary
	ud2

/* Copied to the page that the start-up IPI names. */
	.globl trampoline, trampoline_end
trampoline:
	movl	$pa(startup_secondary), %eax
	jmp	*%eax
trampoline_end:
#endif

	.section .page_tables, "aw"
	.balign 4096
page_directory:
	.long	0x000000e3
	.fill	(PAGE_OFFSET >> 22) - 1, 4, 0
	.set	frame, 0
	.rept	RAM_PAGES
	.long	(frame << 22) | 0xe3
	.set	frame, frame + 1
	.endr
	.fill	(0xfec00000 >> 22) - (PAGE_OFFSET >> 22) - RAM_PAGES, 4, 0
	.long	0xfec000f3			/* local APIC, uncached */
	.fill	1023 - (0xfec00000 >> 22), 4, 0

	.bss
	.balign 4096
	.skip	4096
stack_end:
	.skip	4096
stack_end_secondary:

	.section .note.GNU-stack, "", @progbits
