/*
 * A wake-up that comes too late (b5740f4b2cb3, 3.3): try_to_wake_up() has found a task asleep and is about to say that it
 * runs, but the task has not slept at all. It was between setting its state and looking at what it waits for, saw it, and
 * went on to its end. The late TASK_RUNNING overwrites TASK_DEAD, the last schedule() returns, and do_exit() hits its BUG().
 *
 * The fix waits, before TASK_DEAD is set, until nobody holds the lock under which tasks are woken. That needs the barrier
 * in front of it: without one, the TASK_RUNNING that the task has set by itself may still be held when it finds the lock
 * free, and who takes the lock then still finds it asleep. Under sequential consistency the barrier would do nothing.
 *
 * On UP wake-ups run with interrupts off, and nothing goes wrong.
 */
#include <linux/sched.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

static volatile bool condition;

static void waiter_main(void *argument)
{
	(void)argument;
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (condition)
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
}

void scenario_exit_race(void)
{
	struct task_struct *waiter = make_task("waiter", num_online_cpus() > 1 ? 1 : 0, waiter_main, NULL);

	exit_unguarded = true;
	setup_APIC_timer();
	trace_ready();

	wake_up_new_task(waiter);
	condition = true;
	wake_up_process(waiter);
	wait_for_exit(waiter);
}
