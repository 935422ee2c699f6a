/* The machine's ports and boot parameters: docs/platform.md. */
#ifndef RACETAPE_PORTS_H
#define RACETAPE_PORTS_H

#include <linux/types.h>
#include <asm/io.h>

#define PORT_CONSOLE 0xE9
#define PORT_EXIT 0xF4
#define PORT_CHOICE 0x510

#define EXIT_CLEAN 0x00
#define EXIT_BUG 0x42
#define EXIT_OOPS 0x43

#define BOOT_PARAMS_MAGIC 0x50425452U
#define BOOT_PARAMS_VERSION 1

struct boot_params {
	u32 magic;
	u32 version;
	u32 cpu_count;
	u32 ram_bytes;
	char command_line[240];
};

static inline void machine_exit(u32 status)
{
	for (;;)
		outl(status, PORT_EXIT);
}

/* One of 0..n-1, decided by the schedule. */
static inline u32 machine_choice(u32 n)
{
	outl(n, PORT_CHOICE);
	return inl(PORT_CHOICE);
}

#endif
