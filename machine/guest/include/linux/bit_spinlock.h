/* A spinlock in one bit of a word. UP: preemption is off and the bit is NEVER set. */
#ifndef LINUX_BIT_SPINLOCK_H
#define LINUX_BIT_SPINLOCK_H

#include <linux/preempt.h>

static inline void bit_spin_lock(unsigned bit, volatile unsigned long *addr)
{
	preempt_disable();
#ifdef CONFIG_SMP
	while (test_and_set_bit(bit, addr)) {
		while (test_bit(bit, addr)) {
			preempt_enable();
			cpu_relax();
			preempt_disable();
		}
	}
#else
	(void)bit, (void)addr;
#endif
}

static inline void bit_spin_unlock(unsigned bit, volatile unsigned long *addr)
{
#ifdef CONFIG_SMP
	clear_bit(bit, addr);
#else
	(void)bit, (void)addr;
#endif
	preempt_enable();
}

#endif
