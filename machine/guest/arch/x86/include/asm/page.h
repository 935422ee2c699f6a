#ifndef ASM_PAGE_H
#define ASM_PAGE_H

#define PAGE_SHIFT 12
#define PAGE_OFFSET 0xC0000000

#define KERNEL_CS 0x60
#define KERNEL_DS 0x68
#define KERNEL_PERCPU 0xD8
#define TSS_SELECTOR 0x80

#ifndef __ASSEMBLY__
#include <linux/kernel.h>

/* Lowmem ends here: 1 GB of kernel addresses less 128 MB for fixmap and friends. */
#define MAXMEM 0x38000000UL

#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(x) ALIGN(x, PAGE_SIZE)

#define __pa(x) ((unsigned long)(x) - PAGE_OFFSET)
#define __va(x) ((void *)((unsigned long)(x) + PAGE_OFFSET))

static inline void clear_words(void *to, unsigned long size)
{
	unsigned long count = size / 4;

	asm volatile("cld; rep; stosl" : "+D" (to), "+c" (count) : "a" (0) : "memory");
}

static inline void copy_words(void *to, const void *from, unsigned long size)
{
	unsigned long count = size / 4;

	asm volatile("cld; rep; movsl" : "+D" (to), "+S" (from), "+c" (count) : : "memory");
}

#define clear_page(page) clear_words(page, PAGE_SIZE)
#define copy_page(to, from) copy_words(to, from, PAGE_SIZE)
#endif

#endif
