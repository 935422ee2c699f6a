#ifndef ASM_PAGE_H
#define ASM_PAGE_H

#define PAGE_SHIFT 12

#ifdef CONFIG_X86_64
#include <asm/page_64.h>
#else
#include <asm/page_32.h>
#endif

#ifndef __ASSEMBLY__
#include <linux/kernel.h>

#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(x) ALIGN(x, PAGE_SIZE)

#define __va(x) ((void *)((unsigned long)(x) + PAGE_OFFSET))

/* A word at a time: STOSL and MOVSL on x86-32, STOSQ and MOVSQ on x86-64. */
static inline void clear_words(void *to, unsigned long size)
{
	unsigned long count = size / sizeof(long);

	asm volatile("cld; rep; " STOS_WORD : "+D" (to), "+c" (count) : "a" (0UL) : "memory");
}

static inline void copy_words(void *to, const void *from, unsigned long size)
{
	unsigned long count = size / sizeof(long);

	asm volatile("cld; rep; " MOVS_WORD : "+D" (to), "+S" (from), "+c" (count) : : "memory");
}

#define clear_page(page) clear_words(page, PAGE_SIZE)
#define copy_page(to, from) copy_words(to, from, PAGE_SIZE)
#endif

#endif
