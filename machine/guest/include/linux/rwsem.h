/* Sleeping reader/writer lock, the spinlock-based kind (lib/rwsem-spinlock.c, 2.6.39). */
#ifndef LINUX_RWSEM_H
#define LINUX_RWSEM_H

#include <linux/list.h>
#include <linux/spinlock.h>

struct rw_semaphore {
	int activity;		/* number of readers, or -1 for a writer */
	spinlock_t wait_lock;
	struct list_head wait_list;
};

void init_rwsem(struct rw_semaphore *sem);
void down_read(struct rw_semaphore *sem);
void up_read(struct rw_semaphore *sem);
void down_write(struct rw_semaphore *sem);
void up_write(struct rw_semaphore *sem);

#endif
