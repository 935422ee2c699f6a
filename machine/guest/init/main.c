/* From the first C line to the scenario (init/main.c, 2.6.39). */
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/desc.h>
#include <racetape/ports.h>
#include <racetape/scenario.h>

const struct boot_params *boot_params;

#ifdef CONFIG_SMP
void setup_per_cpu_areas(void);
#endif

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* The init task: run the scenario that the command line names, and end the machine. */
static void kernel_init(void *argument)
{
	char name[64];

	(void)argument;
#ifdef CONFIG_SMP
	smp_boot_cpus(min(boot_params->cpu_count, (u32)NR_CPUS));
#endif
	/* Late: the thresholds depend on how many CPUs there are. */
	init_per_zone_wmark_min();
	if (parse_option("scenario", name, sizeof(name))) {
		for (const struct scenario *scenario = scenarios; scenario->name; scenario++) {
			if (same_text(scenario->name, name)) {
				scenario->run();
				machine_exit(EXIT_CLEAN);
			}
		}
	}
	printk("no such scenario\n");
	machine_exit(EXIT_OOPS);
}

void start_kernel(unsigned long boot_params_phys)
{
	boot_params = __va(boot_params_phys);
#ifdef CONFIG_SMP
	setup_per_cpu_areas();
#endif
	trap_init();
	cpu_init();
	percpu_write(current_task, &init_task);
	BUG_ON(boot_params->magic != BOOT_PARAMS_MAGIC || boot_params->version != BOOT_PARAMS_VERSION);
	paging_init();
	sched_init();
	init_idle(&init_task, 0);
	mem_init();
	setup_local_APIC();
	struct task_struct *init = do_fork("init", 0, 0, kernel_init, NULL);
	BUG_ON(!init);
	wake_up_new_task(init);
	schedule();
	cpu_idle();
}
