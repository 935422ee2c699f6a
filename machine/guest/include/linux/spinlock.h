/*
 * include/linux/spinlock_api_smp.h and spinlock_api_up.h, 2.6.39. On UP a lock is nothing but the preemption count and,
 * where asked for, the interrupt flag: all locks are then equivalent. The tracepoints are there in both builds.
 */
#ifndef LINUX_SPINLOCK_H
#define LINUX_SPINLOCK_H

#include <linux/preempt.h>
#include <asm/spinlock.h>
#include <racetape/tracepoint.h>

typedef struct { arch_spinlock_t raw_lock; } spinlock_t;

#define __SPIN_LOCK_UNLOCKED { { 0 } }
#define DEFINE_SPINLOCK(name) spinlock_t name = __SPIN_LOCK_UNLOCKED

static inline void spin_lock_init(spinlock_t *lock)
{
	lock->raw_lock.slock = 0;
}

static __always_inline void __raw_lock(spinlock_t *lock)
{
#ifdef CONFIG_SMP
	arch_spin_lock(&lock->raw_lock);
#else
	barrier();
#endif
	trace_lock_acquire(lock);
}

static __always_inline void __raw_unlock(spinlock_t *lock)
{
	trace_lock_release(lock);
#ifdef CONFIG_SMP
	arch_spin_unlock(&lock->raw_lock);
#else
	barrier();
#endif
}

static __always_inline void spin_lock(spinlock_t *lock)
{
	preempt_disable();
	__raw_lock(lock);
}

static __always_inline void spin_unlock(spinlock_t *lock)
{
	__raw_unlock(lock);
	preempt_enable();
}

static __always_inline bool spin_trylock(spinlock_t *lock)
{
	preempt_disable();
#ifdef CONFIG_SMP
	if (!arch_spin_trylock(&lock->raw_lock)) {
		preempt_enable();
		return false;
	}
#endif
	trace_lock_acquire(lock);
	return true;
}

static __always_inline void spin_lock_irq(spinlock_t *lock)
{
	local_irq_disable();
	preempt_disable();
	__raw_lock(lock);
}

static __always_inline void spin_unlock_irq(spinlock_t *lock)
{
	__raw_unlock(lock);
	local_irq_enable();
	preempt_enable();
}

#define spin_lock_irqsave(lock, flags) do {	\
	local_irq_save(flags);			\
	preempt_disable();			\
	__raw_lock(lock);			\
} while (0)

#define spin_unlock_irqrestore(lock, flags) do {	\
	__raw_unlock(lock);				\
	local_irq_restore(flags);			\
	preempt_enable();				\
} while (0)

/* Lockdep's subclasses mean nothing here. */
#define spin_lock_nested(lock, subclass) spin_lock(lock)

#ifdef CONFIG_SMP
#define spin_is_locked(lock) arch_spin_is_locked(&(lock)->raw_lock)
#define spin_is_contended(lock) arch_spin_is_contended(&(lock)->raw_lock)
#define spin_unlock_wait(lock) arch_spin_unlock_wait(&(lock)->raw_lock)
#else
#define spin_is_locked(lock) ((void)(lock), 0)
#define spin_is_contended(lock) ((void)(lock), 0)
#define spin_unlock_wait(lock) do { barrier(); (void)(lock); } while (0)
#endif

#endif
