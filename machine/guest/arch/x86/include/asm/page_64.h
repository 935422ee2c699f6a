/*
 * Where things are on x86-64 (arch/x86/include/asm/page_64.h, page_64_types.h and segment.h, 2.6.39): all of RAM from
 * PAGE_OFFSET on, the kernel's own text and data once more at __START_KERNEL_map.
 */
#ifndef ASM_PAGE_64_H
#define ASM_PAGE_64_H

#define PAGE_OFFSET 0xffff880000000000
#define __START_KERNEL_map 0xffffffff80000000

#define KERNEL32_CS 0x08
#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define TSS_SELECTOR 0x40

#ifndef __ASSEMBLY__
/* The last page of the lower half is never used: SYSRET could be made to fault there. */
#define TASK_SIZE_MAX 0x00007ffffffff000UL

static inline unsigned long __phys_addr(unsigned long x)
{
	return x >= __START_KERNEL_map ? x - __START_KERNEL_map : x - PAGE_OFFSET;
}

#define __pa(x) __phys_addr((unsigned long)(x))

#define STOS_WORD "stosq"
#define MOVS_WORD "movsq"
#endif

#endif
