/*
 * A data race and nothing else, to measure how soon a strategy hits it: from `ready` on two CPUs do a thousand
 * instructions each on lines of their own, without locks, interrupts or scheduling. Once each adds 1 to a word that both
 * share, the first after a quarter of its way and the second after three: by a load, an add and a store in the buggy
 * variant, by a locked add in the fixed one.
 */
#include <linux/sched.h>
#include <racetape/ports.h>
#include <racetape/scenario.h>

#define ROUNDS 112U
#define WORDS 16

static struct {
	volatile u32 word[WORDS];
} __aligned(64) own_line[2];

static struct {
	atomic_t sum;
} __aligned(64) shared;

static atomic_t arrived, running = ATOMIC_INIT(2);

static void work_alone(unsigned self, u32 rounds)
{
	for (u32 i = 0; i < rounds; i++)
		own_line[self].word[i % WORDS] += i;
}

static noinline void add_to_shared(void)
{
#ifdef CONFIG_FIXED
	atomic_inc(&shared.sum);
#else
	atomic_set(&shared.sum, atomic_read(&shared.sum) + 1);
#endif
}

/* Whoever is done last looks at the outcome; the other stands still. */
static void run(unsigned self)
{
	u32 before = self ? ROUNDS / 4 * 3 : ROUNDS / 4;

	work_alone(self, before);
	add_to_shared();
	work_alone(self, ROUNDS - before);
	if (atomic_dec_and_test(&running)) {
		if (atomic_read(&shared.sum) != 2)
			scenario_failed("one of two additions to the shared word is lost");
		machine_exit(EXIT_CLEAN);
	}
	for (;;)
		asm volatile("hlt");
}

static void second_main(void *argument)
{
	(void)argument;
	local_irq_disable();
	atomic_inc(&arrived);
	while (atomic_read(&arrived) != 2)
		cpu_relax();
	run(1);
}

void scenario_window(void)
{
	BUG_ON(num_online_cpus() < 2);
	wake_up_new_task(make_task("second", 1, second_main, NULL));
	while (atomic_read(&arrived) != 1)
		cpu_relax();
	local_irq_disable();
	/* Locked, so the other is let go by what is in memory at `ready`: from there on nobody waits for anybody. */
	atomic_inc(&arrived);
	trace_ready();
	run(0);
}
