/* A guest of one page of code for tests of recorder and replayer: any number of CPUs, paging with 4 MB and 4 KB pages,
 * a timer interrupt and IPIs, racy and locked counters, the choice port, console output. A command line that starts
 * with L makes it work a hundred times longer; with I it waits for ever instead of exiting, with V it waits in a loop, with S it shuts down. READY_CPU is the CPU that says when set-up is over.
 */
typedef unsigned int u32;
typedef volatile unsigned int vu32;

enum tracepoint { TP_READY = 3, TP_ROUND = 4 };
volatile enum tracepoint tracepoints = TP_READY;

enum { CPU_MAX = 8, VECTOR_TIMER = 0xEF, VECTOR_IPI = 0xF0, ROUNDS = 60, ROUNDS_LONG = 6000 };

struct boot_params { u32 magic, version, cpu_count, ram_bytes; char command_line[240]; };

#define APIC(offset) (*(vu32 *)(0xFEE00000 + (offset)))
#define TRACE(id, a, b) asm volatile("nopl 0x5254000" #id "(%0,%1,1)" : : "r"(a), "r"(b) : "memory")

static u32 directory[1024] __attribute__((aligned(4096)));
static u32 table[1024] __attribute__((aligned(4096)));
u32 stacks[CPU_MAX][256] __attribute__((aligned(16)));
vu32 rounds, racy, locked, ticks, ipis, finished, go, flag[CPU_MAX], window[CPU_MAX * 16];
static unsigned long long idt[256], gdt[4];
static struct { unsigned short limit; u32 base; } __attribute__((packed)) idtr, gdtr;

static void outb(int port, int value) { asm volatile("outb %b0, %w1" : : "a"(value), "Nd"(port)); }
static void outl(int port, u32 value) { asm volatile("outl %0, %w1" : : "a"(value), "Nd"(port)); }
static u32 inl(int port) { u32 value; asm volatile("inl %w1, %0" : "=a"(value) : "Nd"(port)); return value; }

asm(".globl timer_entry, ipi_entry\n"
    "timer_entry: pusha; call timer; popa; iret\n"
    "ipi_entry: pusha; call ipi; popa; iret\n"
    ".section .start, \"ax\"\n"
    ".globl _start\n"
    "_start: mov $stacks + 1024, %esp; push %esi; call boot\n"
    /* Start-up IPIs start a CPU at a multiple of 4096. */
    ".balign 4096\n"
    ".globl ap_start\n"
    "ap_start: mov 0xFEE00020, %eax; shr $24, %eax; inc %eax; shl $10, %eax; lea stacks(%eax), %esp; call other\n"
    ".text\n");
extern char timer_entry[], ipi_entry[], ap_start[];

void timer(void) { ticks++; APIC(0xB0) = 0; }
void ipi(void) { asm volatile("lock; incl %0" : "+m"(ipis)); APIC(0xB0) = 0; }

static void gate(int vector, const char *entry)
{
	u32 to = (u32)entry;
	idt[vector] = (to & 0xffff) | 0x10 << 16 | (unsigned long long)((to & 0xffff0000) | 0x8e00) << 32;
}

static void tables_load(void)
{
	gdtr.limit = sizeof(gdt) - 1;
	gdtr.base = (u32)gdt;
	idtr.limit = sizeof(idt) - 1;
	idtr.base = (u32)idt;
	asm volatile("lgdt %0; lidt %1" : : "m"(gdtr), "m"(idtr));
	asm volatile("mov %0, %%cr4" : : "r"(0x10)); /* PSE */
	asm volatile("mov %0, %%cr3" : : "r"(directory));
	asm volatile("mov %%cr0, %%eax; or $0x80010000, %%eax; mov %%eax, %%cr0" : : : "eax");
	APIC(0xF0) = 0x1ff;
	APIC(0x320) = VECTOR_TIMER;
	APIC(0x380) = 1000;
}

static void work(u32 cpu, u32 cpu_count)
{
	for (u32 i = 0; i < rounds; i++) {
		racy++;
		asm volatile("lock; incl %0" : "+m"(locked));
		flag[cpu] = i;
		window[cpu * 16 + i % 16] = flag[(cpu + 1) % cpu_count];
		*(vu32 *)(0x400000 + (i % 5) * 4096 + cpu * 4) = i; /* through the 4 KB table */
		TRACE(4, cpu, i);
		if (i % 16 == 7 && cpu_count > 1) {
			APIC(0x310) = (cpu + 1) % cpu_count << 24;
			APIC(0x300) = VECTOR_IPI;
		}
	}
	asm volatile("lock; incl %0" : "+m"(finished));
}

void other(void)
{
	tables_load();
	asm volatile("sti");
	while (!go)
		asm volatile("pause");
	if (READY_CPU && APIC(0x20) >> 24 == READY_CPU)
		TRACE(3, 0, 0);
	work(APIC(0x20) >> 24, go);
	for (;;)
		asm volatile("hlt");
}

void boot(struct boot_params *params)
{
	gdt[2] = 0x00cf9b000000ffffULL;
	gdt[3] = 0x00cf93000000ffffULL;
	gate(VECTOR_TIMER, timer_entry);
	gate(VECTOR_IPI, ipi_entry);
	directory[0] = 0x83;
	for (u32 i = 0; i < 16; i++)
		table[i] = 0x400000 | i << 12 | 3;
	directory[1] = (u32)table | 3;
	directory[0xFEE00000u >> 22] = 0xFEC00083;
	tables_load();
	for (u32 cpu = 1; cpu < params->cpu_count; cpu++) {
		APIC(0x310) = cpu << 24;
		APIC(0x300) = 0x600 | (u32)ap_start >> 12;
	}
	for (u32 i = 0; i < 300; i++) /* set-up worth its name */
		*(vu32 *)(0x200000 + i * 64) = i;
	if (!READY_CPU)
		TRACE(3, 0, 0);
	asm volatile("sti");
	rounds = params->command_line[0] == 'L' ? ROUNDS_LONG : ROUNDS;
	go = params->cpu_count;
	outl(0x510, 3);
	outb(0xE9, 'a' + inl(0x510));
	work(0, params->cpu_count);
	while (finished != params->cpu_count)
		asm volatile("pause");
	for (const char *text = params->command_line; *text; text++)
		outb(0xE9, *text);
	if (params->command_line[0] == 'V') {
		asm volatile("cli");
		while (finished != 99)
			asm volatile("pause");
	}
	if (params->command_line[0] == 'I')
		asm volatile("cli; hlt");
	if (params->command_line[0] == 'S') {
		idtr.limit = 0;
		asm volatile("lidt %0; ud2" : : "m"(idtr));
	}
	/* Clean only if no increment was lost. */
	outl(0xF4, racy == locked ? 0 : 0x42);
	for (;;)
		asm volatile("hlt");
}
