/* Two CPUs that take two spinlocks, each in its own order: with some schedules both wait for ever. With H as the command line they
 * halt instead, each when it has found the other's lock taken. */
typedef unsigned int u32;
typedef volatile unsigned int vu32;

enum tracepoint { TP_READY = 3 };
volatile enum tracepoint tracepoints = TP_READY;

struct boot_params { u32 magic, version, cpu_count, ram_bytes; char command_line[240]; };

#define APIC(offset) (*(vu32 *)(0xFEE00000 + (offset)))

u32 stacks[2][256] __attribute__((aligned(16)));
vu32 first_lock, second_lock, sum, finished, halts;

asm(".section .start, \"ax\"\n"
    ".globl _start\n"
    "_start: mov $stacks + 1024, %esp; push %esi; call boot\n"
    ".balign 4096\n"
    ".globl ap_start\n"
    "ap_start: mov $stacks + 2048, %esp; call other\n"
    ".text\n");
extern char ap_start[];

static void take(vu32 *lock)
{
	u32 taken = 1;
	for (;;) {
		asm volatile("xchg %0, %1" : "+r"(taken), "+m"(*lock) : : "memory");
		if (!taken)
			return;
		if (halts)
			asm volatile("cli; hlt");
		asm volatile("pause");
	}
}

__attribute__((noinline)) void forwards(void)
{
	take(&first_lock);
	take(&second_lock);
	sum++;
	second_lock = 0;
	first_lock = 0;
}

__attribute__((noinline)) void backwards(void)
{
	take(&second_lock);
	take(&first_lock);
	sum++;
	first_lock = 0;
	second_lock = 0;
}

void other(void)
{
	backwards();
	finished = 1;
	for (;;)
		asm volatile("hlt");
}

void boot(struct boot_params *params)
{
	halts = params->command_line[0] == 'H';
	APIC(0xF0) = 0x1ff;
	APIC(0x310) = 1 << 24;
	asm volatile("nopl 0x52540003(%%eax,%%eax,1)" : : : "memory"); /* ready */
	APIC(0x300) = 0x600 | (u32)ap_start >> 12;
	forwards();
	while (!finished)
		asm volatile("pause");
	asm volatile("outl %0, %w1" : : "a"(0), "Nd"(0xF4));
	for (;;)
		asm volatile("hlt");
}
