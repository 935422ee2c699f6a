/* Throttling (mm/backing-dev.c, 2.6.39). No device here ever gets uncongested, so only the timeout ends the wait. */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/swap.h>

/* An uninterruptible sleep: only time ends it, whatever happens to the counters meanwhile. */
long congestion_wait(long timeout)
{
	__set_current_state(TASK_UNINTERRUPTIBLE);
	return schedule_timeout(timeout);
}
