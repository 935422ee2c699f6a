/* The same workload as an ordinary 32-bit process: what the CPU itself does with it. argv[1] = number of rounds. */
#include "workload.h"

char ram[NODES_MAX * NODE_PAGES * PAGE_SIZE] __attribute__((section(".native_ram,\"aw\",@nobits#")));

__attribute__((used)) static void start(long *stack)
{
	const char *argument = (const char *)stack[2];
	unsigned rounds = 0;

	for (; *argument >= '0' && *argument <= '9'; argument++)
		rounds = rounds * 10 + (unsigned)(*argument - '0');
	workload(&nodes[0], rounds);
	__asm__ volatile("int $0x80" : : "a"(1), "b"(0));
	__builtin_unreachable();
}

__asm__(".globl startup\nstartup: mov %esp, %eax\n call start\n");
