/*
 * First instructions on x86-64: PAE, long mode and paging on, 64-bit code, stack, C
 * (arch/x86/boot/compressed/head_64.S and arch/x86/kernel/head_64.S, 2.6.39). The machine starts us in flat 32-bit
 * protected mode (docs/platform.md).
 */
#include <asm/msr.h>
#include <asm/page.h>
#include <asm/processor-flags.h>
#include <asm/thread_info.h>

#define pa(symbol) ((symbol) - __START_KERNEL_map)

#define TABLE 0x023	/* present, writable, accessed */
#define PAGE_2MB 0x0e3	/* and dirty, large */

/*
 * initial_level4_pgt maps the first 8 MB three times: one to one, for the instructions right after, in the direct
 * mapping, and where the kernel is linked. Destroys eax, ecx, edx, ebx; ends in 64-bit code at `target`, at its
 * physical address.
 */
.macro ENABLE_LONG_MODE target
	lgdt	pa(boot_gdt_descr)
	movl	$X86_CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$pa(initial_level4_pgt), %eax
	movl	%eax, %cr3
	/* NX, if there is such a thing, together with long mode. */
	movl	$0x80000001, %eax
	cpuid
	andl	$(1 << X86_FEATURE_NX_BIT), %edx
	shrl	$(X86_FEATURE_NX_BIT - 11), %edx
	movl	%edx, %ebx
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	orl	%ebx, %eax
	wrmsr
	movl	$(X86_CR0_PE | X86_CR0_WP | X86_CR0_PG), %eax
	movl	%eax, %cr0
	/* Compatibility mode now: only a code segment with the L bit makes it 64-bit. */
	ljmp	$KERNEL_CS, $pa(\target)
.endm

/* From the physical to the linked address; no segment but cs means anything, and gs_base is where per-CPU data is. */
.macro ENTER_KERNEL_ADDRESSES
	movq	$1f, %rax
	jmp	*%rax
1:
	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movl	$MSR_GS_BASE, %ecx
	movl	initial_gs, %eax
	movl	initial_gs + 4, %edx
	wrmsr
.endm

	.section .head.text, "ax"
	.code32
	.globl startup_32
startup_32:
	cld
	ENABLE_LONG_MODE startup_64

	.code64
startup_64:
	ENTER_KERNEL_ADDRESSES
	movq	$init_thread_union + THREAD_SIZE, %rsp
	xorl	%ebp, %ebp
	movl	%esi, %edi		/* physical address of boot_params */
	call	start_kernel
	ud2

#ifdef CONFIG_SMP
/* A further CPU arrives here from the trampoline; stack_start is the stack of its idle task. */
	.code32
	.globl secondary_startup_32
secondary_startup_32:
	cld
	ENABLE_LONG_MODE secondary_startup_64

	.code64
secondary_startup_64:
	ENTER_KERNEL_ADDRESSES
	movq	$pa(init_level4_pgt), %rax
	movq	%rax, %cr3
	movq	stack_start, %rsp
	xorl	%ebp, %ebp
	call	start_secondary
	ud2

/* Copied to the page that the start-up IPI names. */
	.code32
	.globl trampoline_data, trampoline_end
trampoline_data:
	movl	$pa(secondary_startup_32), %eax
	jmp	*%eax
trampoline_end:
	.code64
#endif

	.section .data.page_aligned, "aw"
	.balign 4096
initial_level4_pgt:
	.quad	pa(initial_level3_ident) + TABLE
	.fill	271, 8, 0
	.quad	pa(initial_level3_ident) + TABLE	/* PAGE_OFFSET */
	.fill	511 - 273, 8, 0
	.quad	pa(initial_level3_kernel) + TABLE
initial_level3_ident:
	.quad	pa(initial_level2) + TABLE
	.fill	511, 8, 0
initial_level3_kernel:
	.fill	510, 8, 0
	.quad	pa(initial_level2) + TABLE		/* __START_KERNEL_map */
	.quad	0
initial_level2:
	.quad	0x000000 + PAGE_2MB, 0x200000 + PAGE_2MB, 0x400000 + PAGE_2MB, 0x600000 + PAGE_2MB
	.fill	512 - 4, 8, 0

	.data
	.balign 8
	.globl initial_gs
initial_gs:
	.quad	0
	.balign 16
boot_gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* KERNEL32_CS */
	.quad	0x00af9b000000ffff	/* KERNEL_CS */
	.quad	0x00cf93000000ffff	/* KERNEL_DS */
boot_gdt_descr:
	.word	boot_gdt_descr - boot_gdt - 1
	.long	pa(boot_gdt)

	.section .note.GNU-stack, "", @progbits
