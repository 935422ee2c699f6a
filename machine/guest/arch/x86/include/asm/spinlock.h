/*
 * Ticket locks (arch/x86/include/asm/spinlock.h, 2.6.39, fewer than 256 CPUs): low byte = ticket being served, high byte
 * = next ticket to draw. Taking one is a locked 16-bit XADD and then plain loads; leaving is a plain INC of the low
 * byte, an ordinary store that may sit in the store buffer. UP: no lock word is ever touched.
 */
#ifndef ASM_SPINLOCK_H
#define ASM_SPINLOCK_H

#include <asm/system.h>

typedef struct { volatile u32 slock; } arch_spinlock_t;

#ifdef CONFIG_SMP
static __always_inline void arch_spin_lock(arch_spinlock_t *lock)
{
	u16 ticket = 0x0100;

	asm volatile("lock; xaddw %w0, %1" : "+Q" (ticket), "+m" (lock->slock) : : "memory", "cc");
	u8 mine = (u8)(ticket >> 8);
	u8 serving = (u8)ticket;
	while (serving != mine) {
		cpu_relax();
		serving = *(volatile u8 *)&lock->slock;
	}
	barrier();
}

static __always_inline bool arch_spin_trylock(arch_spinlock_t *lock)
{
	u32 before = lock->slock;

	if ((u8)before != (u8)(before >> 8))
		return false;
	return cmpxchg(&lock->slock, before, (before & 0xffff0000) | (u16)(before + 0x0100)) == before;
}

static __always_inline void arch_spin_unlock(arch_spinlock_t *lock)
{
	asm volatile("incb %0" : "+m" (lock->slock) : : "memory", "cc");
}

static __always_inline bool arch_spin_is_locked(arch_spinlock_t *lock)
{
	u32 now = lock->slock;

	return (u8)now != (u8)(now >> 8);
}

static __always_inline bool arch_spin_is_contended(arch_spinlock_t *lock)
{
	u32 now = lock->slock;

	return (u8)((now >> 8) - now) > 1;
}

static __always_inline void arch_spin_unlock_wait(arch_spinlock_t *lock)
{
	while (arch_spin_is_locked(lock))
		cpu_relax();
}
#endif

#endif
