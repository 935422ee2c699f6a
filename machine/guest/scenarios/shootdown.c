/*
 * TLB shoot-down: threads on all CPUs use two pages without pause while one of them has the first page migrated, throws
 * the second away, and forks; at Linux's own sizes two huge pages as well, which are not migrated. Nothing goes wrong in any variant and under any schedule, as long as every CPU's
 * translations go before what they translated to:
 *
 *   migration  a store through a stale translation would be lost in the old page: each thread knows what its word was
 *   zap        a load through a stale translation would find a page that is somebody else's by now: it gets a poison
 *   fork       a store through a stale, still writable translation would show in the child, whose words stand still
 */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/migrate.h>
#include <linux/mm_inline.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <asm/apic.h>
#include <racetape/scenario.h>

#define USER_BASE 0x08000000UL
#define HUGE_BASE 0x10000000UL

/* Two pages: the first has a cache line for each thread, the second is shared. */
struct area {
	unsigned long base, page_bytes;
	unsigned order;
	unsigned long vm_flags;
};

static const struct area areas[] = {
	{ USER_BASE, PAGE_SIZE, 0, VM_NOHUGEPAGE },
#ifndef CONFIG_SMALL
	{ HUGE_BASE, HPAGE_PMD_SIZE, HPAGE_PMD_ORDER, 0 },
#endif
};
#define AREAS ARRAY_SIZE(areas)

#define USER_WORD(area, thread) (*(volatile u32 *)(areas[area].base + (thread) * 64UL))
#define SHARED_ADDRESS(area) (areas[area].base + areas[area].page_bytes)
#define SHARED_WORD(area) (*(volatile u32 *)SHARED_ADDRESS(area))

#define THREAD_MAX 8
#define ROUNDS 3U
#define POISON 0xdeadbeefU
#define SPINS_PER_SLEEP 16U

static struct task_struct *main_task, *thread_task[THREAD_MAX];
static unsigned thread_count;
/* How often each thread has been round; the last round whose shared page is gone. */
static volatile u32 progress[THREAD_MAX];
static volatile u32 zapped[AREAS];
static volatile bool stop;

/* Let others run: a spin, or on UP a yield; now and then a tick's sleep, so that time can pass for others who sleep. */
static void wait_a_bit(unsigned *waits)
{
	if (++*waits % SPINS_PER_SLEEP == 0) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(1);
	} else if (num_online_cpus() > 1) {
		cpu_relax();
	} else {
		schedule();
	}
}

static void thread_main(void *argument)
{
	unsigned long self = (unsigned long)argument;
	unsigned waits = 0;

	for (u32 i = 0; !stop; i++) {
		for (unsigned area = 0; area < AREAS; area++) {
			BUG_ON(USER_WORD(area, self) != i);
			USER_WORD(area, self) = i + 1;

			u32 gone = zapped[area];
			u32 value = SHARED_WORD(area);
			BUG_ON(value == POISON || (value && value <= gone));
		}
		progress[self]++;
		wait_a_bit(&waits);
	}
}

/* Until every thread has been all the way round, and so has translations of both pages. */
static void wait_for_progress(void)
{
	u32 before[THREAD_MAX];
	unsigned waits = 0;

	for (unsigned i = 0; i < thread_count; i++)
		before[i] = progress[i];
	for (unsigned i = 0; i < thread_count; i++) {
		while (progress[i] - before[i] < 2)
			wait_a_bit(&waits);
	}
}

static struct page *new_page(struct page *page, unsigned long private)
{
	(void)page;
	(void)private;
	return alloc_page(GFP_HIGHUSER_MOVABLE);
}

/* As move_pages(2) would: isolate, count, migrate, put back what could not be moved. */
static void migrate_first_page(void)
{
	struct page *page = find_get_mapped(USER_BASE);
	LIST_HEAD(pagelist);

	if (!page)
		return;
	lru_add_drain();
	if (isolate_lru_page(page) == 0) {
		list_add(&page->lru, &pagelist);
		ghost(page, NR_ISOLATED_ANON + page_is_file_cache(page), 1);
		inc_zone_page_state(page, NR_ISOLATED_ANON + page_is_file_cache(page));
	}
	put_page(page);
	if (list_empty(&pagelist))
		return;
	if (migrate_pages(&pagelist, new_page, 0, false, true))
		putback_lru_pages(&pagelist);
	lru_add_drain();
}

/* Throw the second page away and give its frame another use. */
static void zap_second_page(unsigned area, u32 round)
{
	struct mm_struct *mm = current->mm;
	unsigned long start = SHARED_ADDRESS(area);

	SHARED_WORD(area) = round;
	wait_for_progress();
	down_read(&mm->mmap_sem);
	zap_page_range(find_vma(mm, start), start, start + areas[area].page_bytes);
	up_read(&mm->mmap_sem);
	zapped[area] = round;

	/* What this CPU has freed last is what it is given first. */
	struct page *page = alloc_pages(GFP_HIGHUSER_MOVABLE, areas[area].order);
	BUG_ON(!page);
	u32 *poison = kmap_atomic(page);
	*poison = POISON;
	kunmap_atomic(poison);
	wait_for_progress();
	__free_pages(page, areas[area].order);
}

static void child_main(void *argument)
{
	u32 before[AREAS][THREAD_MAX];
	unsigned waits = 0;

	(void)argument;
	for (unsigned i = 0; i < AREAS * thread_count; i++)
		before[i / thread_count][i % thread_count] = USER_WORD(i / thread_count, i % thread_count);
	for (unsigned rounds = 0; rounds < 4; rounds++) {
		wait_a_bit(&waits);
		for (unsigned i = 0; i < AREAS * thread_count; i++) {
			u32 now = USER_WORD(i / thread_count, i % thread_count);

			BUG_ON(now != before[i / thread_count][i % thread_count]);
		}
	}
}

static void fork_child(void)
{
	struct task_struct *child = do_fork("child", current->cpu, 0, child_main, NULL);

	BUG_ON(!child);
	wake_up_new_task(child);
	wait_for_exit(child);
	put_task(child);
}

static void main_main(void *argument)
{
	(void)argument;
	for (unsigned long i = 0; i < thread_count; i++) {
		thread_task[i] = do_fork("thread", i % num_online_cpus(), CLONE_VM, thread_main, (void *)i);
		BUG_ON(!thread_task[i]);
		wake_up_new_task(thread_task[i]);
	}
	for (u32 round = 1; round <= ROUNDS; round++) {
		wait_for_progress();
		migrate_first_page();
		wait_for_progress();
		fork_child();
		for (unsigned area = 0; area < AREAS; area++)
			zap_second_page(area, round);
	}
	stop = true;
	for (unsigned i = 0; i < thread_count; i++) {
		wait_for_exit(thread_task[i]);
		for (unsigned area = 0; area < AREAS; area++)
			BUG_ON(USER_WORD(area, i) != progress[i]);
	}
}

void scenario_shootdown(void)
{
	struct mm_struct *mm = mm_alloc();

	BUG_ON(!mm);
	for (const struct area *area = areas; area < areas + AREAS; area++)
		BUG_ON(!insert_vm_struct(mm, area->base, area->base + 2 * area->page_bytes,
					 VM_READ | VM_WRITE | area->vm_flags));
	thread_count = max(2U, num_online_cpus());
	main_task = make_task("main", 0, main_main, NULL);
	main_task->mm = mm;
	main_task->active_mm = mm;
	setup_APIC_timer();
	trace_ready();

	wake_up_new_task(main_task);
	wait_for_exit(main_task);
	for (int type = 0; type < MAX_NR_ZONES; type++) {
		BUG_ON(zone_page_state(&contig_page_data.node_zones[type], NR_ISOLATED_ANON));
		BUG_ON(zone_page_state(&contig_page_data.node_zones[type], NR_ISOLATED_FILE));
	}
}
