/* Where things are on x86-32 (arch/x86/include/asm/page_32.h, page_32_types.h and segment.h, 2.6.39). */
#ifndef ASM_PAGE_32_H
#define ASM_PAGE_32_H

#define PAGE_OFFSET 0xC0000000

#define KERNEL_CS 0x60
#define KERNEL_DS 0x68
#define KERNEL_PERCPU 0xD8
#define TSS_SELECTOR 0x80

#ifndef __ASSEMBLY__
/* Lowmem ends here: 1 GB of kernel addresses less 128 MB for fixmap and friends. */
#define MAXMEM 0x38000000UL
#define TASK_SIZE_MAX PAGE_OFFSET

#define __pa(x) ((unsigned long)(x) - PAGE_OFFSET)

#define STOS_WORD "stosl"
#define MOVS_WORD "movsl"
#endif

#endif
