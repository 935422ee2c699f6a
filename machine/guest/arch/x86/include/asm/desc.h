/* Segment and gate descriptors, the task state segment. */
#ifndef ASM_DESC_H
#define ASM_DESC_H

#include <asm/page.h>

#define GDT_ENTRIES 32

struct desc_struct { u32 a, b; };

struct desc_ptr {
	u16 size;
	u32 address;
} __attribute__((packed));

/* Only esp0 and ss0 matter: nothing here switches tasks in hardware. */
struct tss_struct {
	u32 back_link, sp0, ss0;
	u32 unused[22];
	u16 trace, io_bitmap_base;
};

void cpu_init(void);
void trap_init(void);

#endif
