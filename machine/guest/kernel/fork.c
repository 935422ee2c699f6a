/* Tasks and address spaces come and go (kernel/fork.c, kernel/exit.c, 2.6.39). */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmstat.h>
#include <asm/mmu_context.h>
#include <asm/switch_to.h>

DEFINE_KMEM_CACHE(task_struct_cache, struct task_struct);
DEFINE_KMEM_CACHE(mm_cache, struct mm_struct);

struct mm_struct init_mm = {
	.pgd = swapper_pg_dir,
	.mm_users = ATOMIC_INIT(2),
	.mm_count = ATOMIC_INIT(1),
};

union thread_union init_thread_union __section(".data.init_task") __aligned(THREAD_SIZE);

struct task_struct init_task = { .stack = &init_thread_union.thread_info };

static int last_pid;

extern const char ret_from_fork[];

bool exit_unguarded;

struct mm_struct *mm_alloc(void)
{
	struct mm_struct *mm = kmem_cache_zalloc(&mm_cache);

	if (!mm)
		return NULL;
	mm->pgd = pgd_alloc();
	if (!mm->pgd) {
		kmem_cache_free(&mm_cache, mm);
		return NULL;
	}
	atomic_set(&mm->mm_users, 1);
	atomic_set(&mm->mm_count, 1);
	spin_lock_init(&mm->page_table_lock);
	init_rwsem(&mm->mmap_sem);
	return mm;
}

void mmdrop(struct mm_struct *mm)
{
	if (!atomic_dec_and_test(&mm->mm_count))
		return;
	pgd_free(mm->pgd);
	kmem_cache_free(&mm_cache, mm);
}

void mmput(struct mm_struct *mm)
{
	if (!atomic_dec_and_test(&mm->mm_users))
		return;
	exit_mmap(mm);
	mmdrop(mm);
}

static void account_kernel_stack(struct thread_info *stack, int account)
{
	struct page *page = virt_to_page(stack);

	ghost(page, NR_KERNEL_STACK, account);
	mod_zone_page_state(page_zone(page), NR_KERNEL_STACK, account);
}

static struct mm_struct *copy_mm(unsigned clone_flags)
{
	struct mm_struct *oldmm = current->mm;

	if (clone_flags & CLONE_VM) {
		atomic_inc(&oldmm->mm_users);
		return oldmm;
	}
	struct mm_struct *mm = mm_alloc();
	if (mm && dup_mmap(mm, oldmm)) {
		mmput(mm);
		return NULL;
	}
	return mm;
}

/* A new task, not yet started: see wake_up_new_task(). It runs entry(argument) in ring 0 with our mm or a copy of it. */
struct task_struct *do_fork(const char *name, int cpu, unsigned clone_flags, void (*entry)(void *), void *argument)
{
	struct task_struct *task = kmem_cache_zalloc(&task_struct_cache);
	if (!task)
		return NULL;
	struct thread_info *stack = (struct thread_info *)__get_free_pages(GFP_KERNEL, THREAD_ORDER);
	if (!stack)
		goto free_task;
	if (current->mm) {
		task->mm = copy_mm(clone_flags);
		if (!task->mm)
			goto free_stack;
	} else {
		task->flags = PF_KTHREAD;
	}
	task->active_mm = task->mm;

	memset(stack, 0, sizeof(*stack));
	stack->task = task;
	stack->cpu = cpu;
	/* One for the lock, one for schedule(): schedule_tail() gives both back. */
	stack->preempt_count = 2;
	account_kernel_stack(stack, 1);
	struct switch_frame *frame = (struct switch_frame *)((unsigned long)stack + THREAD_SIZE) - 1;
	memset(frame, 0, sizeof(*frame));
	frame->return_address = (unsigned long)ret_from_fork;

	task->state = TASK_UNINTERRUPTIBLE;
	task->stack = stack;
	task->thread.sp = (unsigned long)frame;
	task->pid = ++last_pid;
	task->cpu = cpu;
	INIT_LIST_HEAD(&task->timer_list);
	task->entry = entry;
	task->argument = argument;
	task->parent = current;
	for (unsigned i = 0; i < sizeof(task->comm) - 1 && name[i]; i++)
		task->comm[i] = name[i];
	trace_task_new(task);
	return task;

free_stack:
	free_pages((unsigned long)stack, THREAD_ORDER);
free_task:
	kmem_cache_free(&task_struct_cache, task);
	return NULL;
}

static void exit_mm(void)
{
	struct mm_struct *mm = current->mm;

	if (!mm)
		return;
	/* Go on as a kernel thread that has borrowed what was ours. */
	preempt_disable();
	atomic_inc(&mm->mm_count);
	current->mm = NULL;
	enter_lazy_tlb();
	preempt_enable();
	mmput(mm);
}

void do_exit(void)
{
	current->flags |= PF_EXITING;
	exit_mm();
	trace_task_exit(current);
	preempt_disable();
	/*
	 * Who found us asleep may be about to say that we run, though we have seen by ourselves why and gone on: let it, or it
	 * would overwrite TASK_DEAD (b5740f4b2cb3, 3.3).
	 */
#ifndef CONFIG_FIX_b5740f4b2cb3
	if (!exit_unguarded)
#endif
		task_rq_unlock_wait(current);
	current->state = TASK_DEAD;
	schedule();
	BUG();
}

void wait_for_exit(struct task_struct *task)
{
	BUG_ON(task->parent != current);
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (task->exited)
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
}

/* After wait_for_exit(). */
void put_task(struct task_struct *task)
{
	BUG_ON(!task->exited);
	account_kernel_stack(task->stack, -1);
	free_pages((unsigned long)task->stack, THREAD_ORDER);
	kmem_cache_free(&task_struct_cache, task);
}
