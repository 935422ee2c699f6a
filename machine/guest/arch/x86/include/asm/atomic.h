/*
 * One instruction each; LOCK on SMP only (arch/x86/include/asm/atomic.h, 2.6.39). Reading and setting are a plain
 * load and a plain store.
 */
#ifndef ASM_ATOMIC_H
#define ASM_ATOMIC_H

#include <asm/system.h>

#define ATOMIC_INIT(i) { (i) }

static inline int atomic_read(const atomic_t *v)
{
	return *(volatile const int *)&v->counter;
}

static inline void atomic_set(atomic_t *v, int i)
{
	v->counter = i;
}

static inline void atomic_add(int i, atomic_t *v)
{
	asm volatile(LOCK_PREFIX "addl %1, %0" : "+m" (v->counter) : "ir" (i) : "cc");
}

static inline void atomic_sub(int i, atomic_t *v)
{
	asm volatile(LOCK_PREFIX "subl %1, %0" : "+m" (v->counter) : "ir" (i) : "cc");
}

static inline void atomic_inc(atomic_t *v)
{
	asm volatile(LOCK_PREFIX "incl %0" : "+m" (v->counter) : : "cc");
}

static inline void atomic_dec(atomic_t *v)
{
	asm volatile(LOCK_PREFIX "decl %0" : "+m" (v->counter) : : "cc");
}

static inline bool atomic_dec_and_test(atomic_t *v)
{
	u8 zero;

	asm volatile(LOCK_PREFIX "decl %0; sete %1" : "+m" (v->counter), "=qm" (zero) : : "memory", "cc");
	return zero;
}

static inline bool atomic_inc_and_test(atomic_t *v)
{
	u8 zero;

	asm volatile(LOCK_PREFIX "incl %0; sete %1" : "+m" (v->counter), "=qm" (zero) : : "memory", "cc");
	return zero;
}

static inline bool atomic_add_negative(int i, atomic_t *v)
{
	u8 negative;

	asm volatile(LOCK_PREFIX "addl %2, %0; sets %1"
		     : "+m" (v->counter), "=qm" (negative) : "ir" (i) : "memory", "cc");
	return negative;
}

static inline int atomic_cmpxchg(atomic_t *v, int old, int new)
{
	return (int)cmpxchg((volatile u32 *)&v->counter, (u32)old, (u32)new);
}

/* Add `i` unless the value is `u`; a load and a loop of compare-exchanges. Returns whether it added. */
static inline bool atomic_add_unless(atomic_t *v, int i, int u)
{
	int now = atomic_read(v);

	while (now != u) {
		int before = atomic_cmpxchg(v, now, now + i);

		if (before == now)
			return true;
		now = before;
	}
	return false;
}

#define atomic_inc_not_zero(v) atomic_add_unless((v), 1, 0)

#ifdef CONFIG_X86_64
#include <asm/atomic64_64.h>
#define atomic_long_read atomic64_read
#define atomic_long_set atomic64_set
#define atomic_long_add atomic64_add
#define atomic_long_inc atomic64_inc
#define atomic_long_dec atomic64_dec
#else
#define atomic_long_read atomic_read
#define atomic_long_set atomic_set
#define atomic_long_add atomic_add
#define atomic_long_inc atomic_inc
#define atomic_long_dec atomic_dec
#endif

#endif
