/* Context switch (arch/x86/include/asm/system.h, 2.6.39; as functions instead of inline assembly). */
#ifndef ASM_SWITCH_TO_H
#define ASM_SWITCH_TO_H

struct task_struct;

struct task_struct *__switch_to_asm(struct task_struct *prev, struct task_struct *next);

/* What __switch_to_asm pops. */
struct switch_frame {
#ifdef CONFIG_X86_64
	unsigned long r15, r14, r13, r12, bx, bp;
#else
	unsigned long di, si, bx, bp;
#endif
	unsigned long return_address;
};

#endif
