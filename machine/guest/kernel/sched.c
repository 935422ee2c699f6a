/*
 * The scheduler (kernel/sched.c, 2.6.39, its skeleton): one run queue per CPU, round robin by tick, tasks stay where they
 * were started. CONFIG_PREEMPT: an interrupt may switch tasks wherever preempt_count is 0.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/mmu_context.h>
#include <asm/switch_to.h>

_Static_assert(offsetof(struct thread_info, flags) == TI_FLAGS, "asm/thread_info.h");
_Static_assert(offsetof(struct thread_info, preempt_count) == TI_PREEMPT_COUNT, "asm/thread_info.h");
_Static_assert(offsetof(struct task_struct, thread.sp) == TASK_THREAD_SP, "asm/thread_info.h");

struct rq {
	spinlock_t lock;
	struct task_struct *curr, *idle;
	struct list_head queue;		/* runnable, without curr */
	unsigned long nr_switches;
	struct mm_struct *prev_mm;	/* a borrowed mm to drop after the switch */
};

static DEFINE_PER_CPU(struct rq, runqueues);
DEFINE_PER_CPU(struct task_struct *, current_task);

#define cpu_rq(cpu) (&per_cpu(runqueues, cpu))
#define this_rq() (&__get_cpu_var(runqueues))

volatile unsigned long jiffies;

static DEFINE_SPINLOCK(timer_lock);
static LIST_HEAD(sleepers);

void sched_init(void)
{
	for (int cpu = 0; cpu < NR_CPUS; cpu++) {
		struct rq *rq = cpu_rq(cpu);

		spin_lock_init(&rq->lock);
		INIT_LIST_HEAD(&rq->queue);
	}
}

/* Whatever runs on `cpu` now, or is about to, is its idle task. */
void init_idle(struct task_struct *idle, int cpu)
{
	struct rq *rq = cpu_rq(cpu);

	idle->state = TASK_RUNNING;
	idle->cpu = cpu;
	idle->flags = PF_KTHREAD;
	idle->active_mm = &init_mm;
	atomic_inc(&init_mm.mm_count);
	memcpy(idle->comm, "swapper", 8);
	INIT_LIST_HEAD(&idle->timer_list);
	idle->stack->task = idle;
	idle->stack->cpu = cpu;
	idle->stack->preempt_count = 1;
	rq->curr = idle;
	rq->idle = idle;
	trace_task_new(idle);
}

/* -- switching -- */

static void finish_task_switch(struct task_struct *prev)
{
	struct rq *rq = this_rq();
	struct mm_struct *mm = rq->prev_mm;
	bool dead = prev->state == TASK_DEAD;

	rq->prev_mm = NULL;
	spin_unlock_irq(&rq->lock);
	if (mm)
		mmdrop(mm);
	/* Its stack is out of use only now: whoever waits may free it. */
	if (dead) {
		struct task_struct *parent = prev->parent;

		prev->exited = true;
		wake_up_process(parent);
	}
}

/* First thing a new task does (entry_32.S, entry_64.S); schedule() by the task before it had taken lock and preemption. */
void schedule_tail(struct task_struct *prev)
{
	finish_task_switch(prev);
	preempt_enable();
}

/* Second thing. */
void task_start(void)
{
	current->entry(current->argument);
	do_exit();
}

static void context_switch(struct rq *rq, struct task_struct *prev, struct task_struct *next)
{
	struct mm_struct *mm = next->mm, *oldmm = prev->active_mm;

	trace_sched_switch(prev, next);
	if (!mm) {
		/* A kernel thread borrows what is loaded. */
		next->active_mm = oldmm;
		atomic_inc(&oldmm->mm_count);
		enter_lazy_tlb();
	} else {
		switch_mm(oldmm, mm);
	}
	if (!prev->mm) {
		prev->active_mm = NULL;
		rq->prev_mm = oldmm;
	}
	prev = __switch_to_asm(prev, next);
	barrier();
	finish_task_switch(prev);
}

static struct task_struct *pick_next_task(struct rq *rq)
{
	if (list_empty(&rq->queue))
		return rq->idle;
	struct task_struct *next = list_first_entry(&rq->queue, struct task_struct, run_list);
	list_del_init(&next->run_list);
	return next;
}

static bool signal_pending_state(long state, struct task_struct *task)
{
	if (!(state & (TASK_INTERRUPTIBLE | TASK_WAKEKILL)) || !signal_pending(task))
		return false;
	return (state & TASK_INTERRUPTIBLE) || fatal_signal_pending(task);
}

asmlinkage void schedule(void)
{
	do {
		preempt_disable();
		struct rq *rq = this_rq();
		struct task_struct *prev = rq->curr;

		spin_lock_irq(&rq->lock);
		/* A preempted task stays runnable, whatever state it was about to enter. */
		if (prev->state && !(preempt_count() & PREEMPT_ACTIVE)) {
			if (signal_pending_state(prev->state, prev))
				prev->state = TASK_RUNNING;
			else
				prev->on_rq = false;
		}
		if (prev != rq->idle && prev->on_rq)
			list_add_tail(&prev->run_list, &rq->queue);
		struct task_struct *next = pick_next_task(rq);
		clear_tsk_need_resched(prev);
		if (prev != next) {
			rq->nr_switches++;
			rq->curr = next;
			context_switch(rq, prev, next);	/* unlocks */
		} else {
			spin_unlock_irq(&rq->lock);
		}
		preempt_enable_no_resched();
	} while (need_resched());
}

/* preempt_enable() found that somebody wants the CPU. */
void preempt_schedule(void)
{
	if (likely(preempt_count() || irqs_disabled()))
		return;
	do {
		preempt_count() += PREEMPT_ACTIVE;
		schedule();
		preempt_count() -= PREEMPT_ACTIVE;
		barrier();
	} while (need_resched());
}

/* The same on the way out of an interrupt (ret_from_intr), with interrupts off at both ends. */
asmlinkage void preempt_schedule_irq(void)
{
	BUG_ON(preempt_count() || !irqs_disabled());
	do {
		preempt_count() += PREEMPT_ACTIVE;
		local_irq_enable();
		schedule();
		local_irq_disable();
		preempt_count() -= PREEMPT_ACTIVE;
		barrier();
	} while (need_resched());
}

void cpu_idle(void)
{
	local_irq_enable();
	for (;;) {
		while (!need_resched()) {
			local_irq_disable();
			/* Looked at with interrupts off: a wake-up between the look and HLT would be slept through. */
			if (need_resched())
				local_irq_enable();
			else
				safe_halt();
		}
		schedule();
	}
}

/* -- waking -- */

static void resched_task(struct rq *rq, int cpu)
{
	set_bit(TIF_NEED_RESCHED, &rq->curr->stack->flags);
#ifdef CONFIG_SMP
	if (cpu != smp_processor_id())
		smp_send_reschedule(cpu);
#else
	(void)cpu;
#endif
}

/* Wake-ups preempt only the idle task; others run on to their next tick. */
static void activate_task(struct rq *rq, struct task_struct *task)
{
	task->on_rq = true;
	list_add_tail(&task->run_list, &rq->queue);
	if (rq->curr == rq->idle)
		resched_task(rq, task->cpu);
}

int wake_up_process(struct task_struct *task)
{
	struct rq *rq = cpu_rq(task->cpu);
	unsigned long flags;
	int success = 0;

	spin_lock_irqsave(&rq->lock, flags);
	if (task->state & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)) {
		task->state = TASK_RUNNING;
		if (!task->on_rq)
			activate_task(rq, task);
		success = 1;
	}
	spin_unlock_irqrestore(&rq->lock, flags);
	return success;
}

#ifdef CONFIG_SMP
/* Whoever was waking `task` has done so, and whoever does from now on sees what we had set its state to. */
void task_rq_unlock_wait(struct task_struct *task)
{
#ifndef CONFIG_SEED_NO_MB
	smp_mb();
#endif
	spin_unlock_wait(&cpu_rq(task->cpu)->lock);
}
#endif

void wake_up_new_task(struct task_struct *task)
{
	struct rq *rq = cpu_rq(task->cpu);
	unsigned long flags;

	spin_lock_irqsave(&rq->lock, flags);
	task->state = TASK_RUNNING;
	activate_task(rq, task);
	spin_unlock_irqrestore(&rq->lock, flags);
}

/* A fatal signal ends killable and interruptible sleeps; others only see it when they wake by themselves. */
void send_sig(int sig, struct task_struct *task)
{
	trace_signal(task, sig);
	set_bit(sig, &task->pending);
	set_bit(TIF_SIGPENDING, &task->stack->flags);
	if (task->state & (TASK_INTERRUPTIBLE | TASK_WAKEKILL))
		wake_up_process(task);
}

/* -- time -- */

/* Any CPU's tick advances jiffies: the schedule decides who ticks, and all others may be asleep. */
void do_timer(void)
{
	struct task_struct *task, *next;

	spin_lock(&timer_lock);
	jiffies++;
	list_for_each_entry_safe(task, next, &sleepers, timer_list) {
		if ((long)(jiffies - task->wake_at) < 0)
			continue;
		list_del_init(&task->timer_list);
		wake_up_process(task);
	}
	spin_unlock(&timer_lock);
}

void scheduler_tick(void)
{
	if (!list_empty(&this_rq()->queue))
		set_need_resched();
}

/* The caller has set the state it sleeps in. Returns the ticks that were left. */
long schedule_timeout(long timeout)
{
	unsigned long flags;

	if (timeout == MAX_SCHEDULE_TIMEOUT) {
		schedule();
		return timeout;
	}
	spin_lock_irqsave(&timer_lock, flags);
	current->wake_at = jiffies + timeout;
	unsigned long expire = current->wake_at;
	list_add_tail(&current->timer_list, &sleepers);
	spin_unlock_irqrestore(&timer_lock, flags);
	schedule();
	spin_lock_irqsave(&timer_lock, flags);
	list_del_init(&current->timer_list);
	spin_unlock_irqrestore(&timer_lock, flags);
	long left = expire - jiffies;
	return left < 0 ? 0 : left;
}
