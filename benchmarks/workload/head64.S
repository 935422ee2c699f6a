/*
 * First instructions of the 64-bit image: long mode with 2 MB pages, one to one, at PAGE_OFFSET, and the kernel itself at
 * -2 GB, as Linux maps them; then C. %esi = boot_params.
 */
#define KERNEL_MAP 0xffffffff80000000
#define RAM_PAGES 32		/* of 2 MB */
#define pa(symbol) ((symbol) - KERNEL_MAP)

.macro enable_long_mode stack, entry
	movl	$0xa0, %eax			/* PAE, PGE */
	movl	%eax, %cr4
	movl	$pa(top_table), %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx		/* EFER: LME, NXE */
	rdmsr
	orl	$0x900, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80010001, %eax		/* PG, WP, PE */
	movl	%eax, %cr0
	lgdtl	pa(gdt_pointer)
	ljmpl	$0x08, $pa(1f)
	.code64
1:	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movabsq	$\stack, %rsp
	xorl	%ebp, %ebp
	movabsq	$\entry, %rax
	jmp	*%rax
	.code32
.endm

	.section .head.text, "ax"
	.code32
	.globl startup
startup:
	cld
	enable_long_mode stack_end startup_64
#ifdef CONFIG_SMP
startup_secondary:
	cld
	enable_long_mode stack_end_secondary startup_64_secondary

/* Copied to the page that the start-up IPI names. */
	.globl trampoline, trampoline_end
trampoline:
	movl	$pa(startup_secondary), %eax
	jmp	*%eax
trampoline_end:
#endif
	.code64
startup_64:
	movl	%esi, %edi
	movabsq	$0xffff880000000000, %rax
	addq	%rax, %rdi
	call	start_kernel
	ud2
#ifdef CONFIG_SMP
startup_64_secondary:
	call	start_secondary
	ud2
#endif

	.section .page_tables, "aw"
	.balign 8
gdt:
	.quad	0
	.quad	0x00af9b000000ffff		/* 64-bit code */
	.quad	0x00cf93000000ffff		/* data */
gdt_pointer:
	.word	. - gdt - 1
	.long	pa(gdt)
	.balign 4096
top_table:
	.quad	pa(low_table) + 0x23
	.fill	271, 8, 0
	.quad	pa(low_table) + 0x23		/* PAGE_OFFSET */
	.fill	511 - 273, 8, 0
	.quad	pa(high_table) + 0x23		/* the kernel */
low_table:
	.quad	pa(ram_table) + 0x23
	.fill	2, 8, 0
	.quad	pa(device_table) + 0x23
	.fill	508, 8, 0
high_table:
	.fill	510, 8, 0
	.quad	pa(ram_table) + 0x23
	.quad	0
ram_table:
	.set	frame, 0
	.rept	RAM_PAGES
	.quad	(frame << 21) | 0x1e3
	.set	frame, frame + 1
	.endr
	.fill	512 - RAM_PAGES, 8, 0
device_table:
	.fill	503, 8, 0
	.quad	0xfee001f3			/* local APIC, uncached */
	.fill	8, 8, 0

	.bss
	.balign 4096
	.skip	4096
stack_end:
	.skip	4096
stack_end_secondary:

	.section .note.GNU-stack, "", @progbits
