/*
 * Bit operations (arch/x86/include/asm/bitops.h, 2.6.39). With a constant bit number set_bit and clear_bit work on
 * ONE BYTE (orb, andb), with a variable one on a word of 32 bits (bts, btr), also on x86-64; the __ forms are
 * unlocked word read-modify-writes. The mix of widths is part of what the guest is faithful to: do not unify it.
 */
#ifndef ASM_BITOPS_H
#define ASM_BITOPS_H

#include <asm/system.h>

#ifdef CONFIG_X86_64
#define BITS_PER_LONG 64
#else
#define BITS_PER_LONG 32
#endif
#define BIT_BYTE(nr, addr) (*((volatile u8 *)(addr) + ((nr) >> 3)))

static __always_inline void set_bit(unsigned nr, volatile unsigned long *addr)
{
	if (__builtin_constant_p(nr))
		asm volatile(LOCK_PREFIX "orb %1, %0"
			     : "+m" (BIT_BYTE(nr, addr)) : "iq" ((u8)(1u << (nr & 7))) : "memory", "cc");
	else
		asm volatile(LOCK_PREFIX "btsl %1, %0" : "+m" (*addr) : "Ir" (nr) : "memory", "cc");
}

static __always_inline void clear_bit(unsigned nr, volatile unsigned long *addr)
{
	if (__builtin_constant_p(nr))
		asm volatile(LOCK_PREFIX "andb %1, %0"
			     : "+m" (BIT_BYTE(nr, addr)) : "iq" ((u8)~(1u << (nr & 7))) : "memory", "cc");
	else
		asm volatile(LOCK_PREFIX "btrl %1, %0" : "+m" (*addr) : "Ir" (nr) : "memory", "cc");
}

static __always_inline bool test_and_set_bit(unsigned nr, volatile unsigned long *addr)
{
	u8 was;

	asm volatile(LOCK_PREFIX "btsl %2, %0; setc %1"
		     : "+m" (*addr), "=qm" (was) : "Ir" (nr) : "memory", "cc");
	return was;
}

static __always_inline bool test_and_clear_bit(unsigned nr, volatile unsigned long *addr)
{
	u8 was;

	asm volatile(LOCK_PREFIX "btrl %2, %0; setc %1"
		     : "+m" (*addr), "=qm" (was) : "Ir" (nr) : "memory", "cc");
	return was;
}

static __always_inline void __set_bit(unsigned nr, volatile unsigned long *addr)
{
	asm volatile("btsl %1, %0" : "+m" (*addr) : "Ir" (nr) : "memory", "cc");
}

static __always_inline void __clear_bit(unsigned nr, volatile unsigned long *addr)
{
	asm volatile("btrl %1, %0" : "+m" (*addr) : "Ir" (nr) : "memory", "cc");
}

static __always_inline bool test_bit(unsigned nr, const volatile unsigned long *addr)
{
	return (addr[nr / BITS_PER_LONG] >> (nr % BITS_PER_LONG)) & 1;
}

/* 1-based index of the highest set bit, 0 for 0. */
static inline int fls(unsigned x)
{
	return x ? 32 - __builtin_clz(x) : 0;
}

#define __ffs(x) ((unsigned)__builtin_ctz(x))

#endif
