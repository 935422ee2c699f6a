/* From the first instruction in C to the last (docs/platform.md). */
#include "workload.h"

enum { PORT_EXIT = 0xf4, TRAMPOLINE_PAGE = 8, ICR_LOW = 0x300, ICR_START = 0xc4600 /* start-up, all but self */ };
#define APIC_BASE 0xfee00000ul
#define TRACEPOINT_BASE 0x52540000

/* racetape finds the tracepoint by this type's debug information. */
enum tracepoint { TP_NONE, TP_READY };

struct boot_params {
	uint32_t magic, version, cpu_count, ram_bytes;
	char command_line[240]; /* the number of rounds, in decimal */
};

static unsigned rounds;
static volatile unsigned running;

void end(void);
extern char trampoline[], trampoline_end[];

static void trace_ready(void)
{
	__asm__ volatile("nopl %c0(%1,%1,1)" : : "i"(TRACEPOINT_BASE | TP_READY), "r"(0l));
}

#ifdef CONFIG_SMP
void start_secondary(void)
{
	workload(&nodes[1], rounds);
	running = 0;
	/* A halted CPU drains nothing by itself. */
	__asm__ volatile("lock; addl $0, %0" : "+m"(rounds) : : "memory", "cc");
	for (;;)
		__asm__ volatile("hlt");
}

static void start_others(unsigned cpu_count)
{
	char *to = phys_to_virt((unsigned long)TRAMPOLINE_PAGE << PAGE_SHIFT);

	if (cpu_count < 2)
		return;
	for (long i = 0; i < trampoline_end - trampoline; i++)
		to[i] = trampoline[i];
	running = 1;
	*(volatile uint32_t *)(APIC_BASE + ICR_LOW) = ICR_START | TRAMPOLINE_PAGE;
}
#endif

void start_kernel(const struct boot_params *params)
{
	for (const char *c = params->command_line; *c >= '0' && *c <= '9'; c++)
		rounds = rounds * 10 + (unsigned)(*c - '0');
#ifdef CONFIG_SMP
	start_others(params->cpu_count);
#endif
	trace_ready();
	workload(&nodes[0], rounds);
	while (running)
		__builtin_ia32_pause();
	end();
}

/* Where the other emulator is told to stop. */
__attribute__((noinline)) void end(void)
{
	for (;;)
		__asm__ volatile("outl %0, %1" : : "a"(0), "N"(PORT_EXIT));
}
