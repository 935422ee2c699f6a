/* Reader/writer semaphores under a spinlock (lib/rwsem-spinlock.c, 2.6.39). First come, first served. */
#include <linux/rwsem.h>
#include <linux/sched.h>

struct rwsem_waiter {
	struct list_head list;
	struct task_struct *volatile task;	/* NULL: granted */
	bool write;
};

void init_rwsem(struct rw_semaphore *sem)
{
	sem->activity = 0;
	spin_lock_init(&sem->wait_lock);
	INIT_LIST_HEAD(&sem->wait_list);
}

/* Hand over to the first in line: a writer alone, or all readers up to the next writer. Caller holds wait_lock. */
static void rwsem_do_wake(struct rw_semaphore *sem)
{
	while (!list_empty(&sem->wait_list)) {
		struct rwsem_waiter *waiter = list_first_entry(&sem->wait_list, struct rwsem_waiter, list);
		struct task_struct *task = waiter->task;
		bool write = waiter->write;

		if (write && sem->activity)
			break;
		sem->activity += write ? -1 : 1;
		list_del(&waiter->list);
		/* The waiter lives on its task's stack and is gone as soon as this is seen. */
		smp_mb();
		waiter->task = NULL;
		wake_up_process(task);
		if (write)
			break;
	}
}

static void rwsem_down(struct rw_semaphore *sem, bool write)
{
	struct rwsem_waiter waiter = { .task = current, .write = write };
	unsigned long flags;

	spin_lock_irqsave(&sem->wait_lock, flags);
	if (list_empty(&sem->wait_list) && (write ? sem->activity == 0 : sem->activity >= 0)) {
		sem->activity += write ? -1 : 1;
		spin_unlock_irqrestore(&sem->wait_lock, flags);
		return;
	}
	set_current_state(TASK_UNINTERRUPTIBLE);
	list_add_tail(&waiter.list, &sem->wait_list);
	spin_unlock_irqrestore(&sem->wait_lock, flags);
	while (waiter.task) {
		schedule();
		set_current_state(TASK_UNINTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
}

static void rwsem_up(struct rw_semaphore *sem, bool write)
{
	unsigned long flags;

	spin_lock_irqsave(&sem->wait_lock, flags);
	sem->activity += write ? 1 : -1;
	if (!sem->activity)
		rwsem_do_wake(sem);
	spin_unlock_irqrestore(&sem->wait_lock, flags);
}

void down_read(struct rw_semaphore *sem) { rwsem_down(sem, false); }
void up_read(struct rw_semaphore *sem) { rwsem_up(sem, false); }
void down_write(struct rw_semaphore *sem) { rwsem_down(sem, true); }
void up_write(struct rw_semaphore *sem) { rwsem_up(sem, true); }
