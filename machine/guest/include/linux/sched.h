#ifndef LINUX_SCHED_H
#define LINUX_SCHED_H

#include <linux/list.h>
#include <linux/mm_types.h>
#include <asm/atomic.h>
#include <asm/percpu.h>

#define TASK_RUNNING 0
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define TASK_DEAD 64
#define TASK_WAKEKILL 128
#define TASK_KILLABLE (TASK_WAKEKILL | TASK_UNINTERRUPTIBLE)

#define PF_EXITING 0x00000004
#define PF_MEMALLOC 0x00000800
#define PF_KSWAPD 0x00040000
#define PF_KTHREAD 0x00200000

#define SIGKILL 9

#define CLONE_VM 0x00000100

#define MAX_SCHEDULE_TIMEOUT 0x7fffffffL

struct thread_struct {
	unsigned long sp;	/* at TASK_THREAD_SP: __switch_to_asm */
};

struct task_struct {
	volatile long state;
	struct thread_info *stack;
	struct thread_struct thread;
	unsigned flags;
	int pid;
	int cpu;
	bool on_rq;
	struct list_head run_list;
	struct mm_struct *mm, *active_mm;
	volatile unsigned long pending;		/* one bit per signal */
	struct list_head timer_list;		/* sleepers, by wake_at */
	unsigned long wake_at;
	void (*entry)(void *argument);
	void *argument;
	volatile bool exited;
	struct task_struct *parent;	/* woken when we have exited */
	char comm[16];
};

DECLARE_PER_CPU(struct task_struct *, current_task);
#define current percpu_read_stable(current_task)

#define __set_current_state(value) do { current->state = (value); } while (0)
#define set_current_state(value) do { current->state = (value); smp_mb(); } while (0)

extern volatile unsigned long jiffies;
extern struct task_struct init_task;
extern union thread_union init_thread_union;

void sched_init(void);
void init_idle(struct task_struct *idle, int cpu);
asmlinkage void schedule(void);
asmlinkage void preempt_schedule_irq(void);
void cpu_idle(void) __attribute__((noreturn));
void scheduler_tick(void);
void do_timer(void);
long schedule_timeout(long timeout);
int wake_up_process(struct task_struct *task);
void wake_up_new_task(struct task_struct *task);
void send_sig(int sig, struct task_struct *task);

struct task_struct *do_fork(const char *name, int cpu, unsigned clone_flags, void (*entry)(void *), void *argument);
void do_exit(void) __attribute__((noreturn));
extern bool exit_unguarded;	/* do_exit() as in 2.6.39, for the scenario that is about it */
void wait_for_exit(struct task_struct *task);
void put_task(struct task_struct *task);

struct mm_struct *mm_alloc(void);
void mmput(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);
extern struct mm_struct init_mm;

static inline int cond_resched(void)
{
	if (need_resched() && !(preempt_count() & PREEMPT_ACTIVE)) {
		preempt_count() += PREEMPT_ACTIVE;
		schedule();
		preempt_count() -= PREEMPT_ACTIVE;
		return 1;
	}
	return 0;
}

static inline bool signal_pending(struct task_struct *task)
{
	return test_bit(TIF_SIGPENDING, &task->stack->flags);
}

static inline bool fatal_signal_pending(struct task_struct *task)
{
	return signal_pending(task) && (task->pending & (1UL << SIGKILL));
}

static inline void clear_tsk_need_resched(struct task_struct *task)
{
	clear_bit(TIF_NEED_RESCHED, &task->stack->flags);
}

#ifdef CONFIG_SMP
void task_rq_unlock_wait(struct task_struct *task);
void smp_send_reschedule(int cpu);
void smp_boot_cpus(unsigned count);
unsigned num_online_cpus(void);
#else
/* Wake-ups run with interrupts off: nobody sees one half done. */
#define task_rq_unlock_wait(task) barrier()
#define num_online_cpus() 1u
#endif

#endif
