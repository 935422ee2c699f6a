/* The frame that entry.S pushes, lowest address first (arch/x86/include/asm/ptrace.h, 2.6.39). */
#ifndef ASM_PTRACE_H
#define ASM_PTRACE_H

struct pt_regs {
	unsigned long bx, cx, dx, si, di, bp, ax;
	unsigned long ds, es, fs, gs;
	unsigned long orig_ax;
	unsigned long ip, cs, flags;
	unsigned long sp, ss;	/* only when user mode was interrupted */
};

#endif
