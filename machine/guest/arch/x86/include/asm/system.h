/* Barriers, exchanges and control registers (arch/x86/include/asm/system.h and cmpxchg_32.h, cmpxchg_64.h, 2.6.39). */
#ifndef ASM_SYSTEM_H
#define ASM_SYSTEM_H

#include <linux/kernel.h>
#include <asm/irqflags.h>

#ifdef CONFIG_SMP
#define LOCK_PREFIX "lock; "
#ifdef CONFIG_X86_64
#define smp_mb() asm volatile("mfence" : : : "memory")
#else
/* i686 has no MFENCE: a locked add to the stack is the full barrier. */
#define smp_mb() asm volatile("lock; addl $0,0(%%esp)" : : : "memory", "cc")
#endif
#else
#define LOCK_PREFIX ""
#define smp_mb() barrier()
#endif
/* TSO keeps loads with loads and stores with stores: nothing to emit, on SMP either. */
#define smp_rmb() barrier()
#define smp_wmb() barrier()

static inline void cpu_relax(void)
{
	asm volatile("pause" : : : "memory");
}

/* XCHG with memory is locked without being told to, on UP too. */
static inline u32 xchg(volatile u32 *ptr, u32 value)
{
	asm volatile("xchgl %0, %1" : "+r" (value), "+m" (*ptr) : : "memory");
	return value;
}

#ifdef CONFIG_X86_64
static inline u64 xchg64(volatile u64 *ptr, u64 value)
{
	asm volatile("xchgq %0, %1" : "+r" (value), "+m" (*ptr) : : "memory");
	return value;
}
#elif defined(CONFIG_X86_PAE)
/* Both halves at once: a compare-exchange until nobody came in between (cmpxchg_32.h). */
static inline void set_64bit(volatile u64 *ptr, u64 value)
{
	u64 before = *ptr;

	asm volatile("1:	" LOCK_PREFIX "cmpxchg8b %0\n"
		     "	jnz 1b"
		     : "+m" (*ptr), "+A" (before) : "b" ((u32)value), "c" ((u32)(value >> 32)) : "memory", "cc");
}
#endif

static inline u32 cmpxchg(volatile u32 *ptr, u32 old, u32 new)
{
	u32 before;

	asm volatile(LOCK_PREFIX "cmpxchgl %2, %1"
		     : "=a" (before), "+m" (*ptr) : "r" (new), "0" (old) : "memory", "cc");
	return before;
}

#define READ_CONTROL(reg) ({ unsigned long v_; asm volatile("mov %%" #reg ", %0" : "=r" (v_) : : "memory"); v_; })
#define WRITE_CONTROL(reg, value) asm volatile("mov %0, %%" #reg : : "r" ((unsigned long)(value)) : "memory")

#define read_cr2() READ_CONTROL(cr2)
#define read_cr3() READ_CONTROL(cr3)
#define write_cr3(value) WRITE_CONTROL(cr3, value)

static inline void invlpg(unsigned long address)
{
	asm volatile("invlpg (%0)" : : "r" (address) : "memory");
}

#endif
