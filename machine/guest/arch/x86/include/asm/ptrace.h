/* The frame that entry_32.S and entry_64.S push, lowest address first (arch/x86/include/asm/ptrace.h, 2.6.39). */
#ifndef ASM_PTRACE_H
#define ASM_PTRACE_H

#ifdef CONFIG_X86_64
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di;
	unsigned long orig_ax;
	unsigned long ip, cs, flags;
	unsigned long sp, ss;	/* always */
};
#else
struct pt_regs {
	unsigned long bx, cx, dx, si, di, bp, ax;
	unsigned long ds, es, fs, gs;
	unsigned long orig_ax;
	unsigned long ip, cs, flags;
	unsigned long sp, ss;	/* only when user mode was interrupted */
};
#endif

#endif
