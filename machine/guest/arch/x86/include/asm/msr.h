/* Model-specific registers (arch/x86/include/asm/msr.h and msr-index.h, 2.6.39). */
#ifndef ASM_MSR_H
#define ASM_MSR_H

#define MSR_EFER 0xc0000080
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101

#define EFER_LME (1 << 8)
#define EFER_NX (1 << 11)

#ifndef __ASSEMBLY__
#include <linux/types.h>

static inline u64 rdmsrl(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a" (low), "=d" (high) : "c" (msr));
	return low | (u64)high << 32;
}

static inline void wrmsrl(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c" (msr), "a" ((u32)value), "d" ((u32)(value >> 32)) : "memory");
}
#endif

#endif
