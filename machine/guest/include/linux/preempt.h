#ifndef LINUX_PREEMPT_H
#define LINUX_PREEMPT_H

#include <linux/kernel.h>
#include <asm/thread_info.h>

void preempt_schedule(void);

#define inc_preempt_count() (preempt_count()++)
#define dec_preempt_count() (preempt_count()--)

#define preempt_disable() do { inc_preempt_count(); barrier(); } while (0)
#define preempt_enable_no_resched() do { barrier(); dec_preempt_count(); } while (0)
#define preempt_check_resched() do { if (need_resched()) preempt_schedule(); } while (0)
#define preempt_enable() do { preempt_enable_no_resched(); barrier(); preempt_check_resched(); } while (0)

#define in_interrupt() (preempt_count() & 0x03ff0000)
#define in_atomic() ((preempt_count() & ~PREEMPT_ACTIVE) != 0)

/* kmap_atomic forbids sleeping faults the same way. */
#define pagefault_disable() preempt_disable()
#define pagefault_enable() preempt_enable()

#ifdef CONFIG_SMP
#define get_cpu() ({ preempt_disable(); smp_processor_id(); })
#else
#define get_cpu() ({ preempt_disable(); 0; })
#endif
#define put_cpu() preempt_enable()

#endif
