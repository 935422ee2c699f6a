/* What atomic_long_t is on x86-64 (arch/x86/include/asm/atomic64_64.h, 2.6.39): the same instructions on eight bytes. */
#ifndef ASM_ATOMIC64_64_H
#define ASM_ATOMIC64_64_H

#include <asm/system.h>

static inline long atomic64_read(const atomic64_t *v)
{
	return *(volatile const long *)&v->counter;
}

static inline void atomic64_set(atomic64_t *v, long i)
{
	v->counter = i;
}

static inline void atomic64_add(long i, atomic64_t *v)
{
	asm volatile(LOCK_PREFIX "addq %1, %0" : "+m" (v->counter) : "er" (i) : "cc");
}

static inline void atomic64_inc(atomic64_t *v)
{
	asm volatile(LOCK_PREFIX "incq %0" : "+m" (v->counter) : : "cc");
}

static inline void atomic64_dec(atomic64_t *v)
{
	asm volatile(LOCK_PREFIX "decq %0" : "+m" (v->counter) : : "cc");
}

#endif
