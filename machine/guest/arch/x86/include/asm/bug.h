/* BUG() is a ud2 whose place the __bug_table section knows, as in arch/x86/include/asm/bug.h. */
#ifndef ASM_BUG_H
#define ASM_BUG_H

#include <linux/types.h>

struct bug_entry {
	u32 bug_addr;
	u32 file;
	u32 line;
};

/* 32 bits hold an address on x86-32, and on x86-64 (GENERIC_BUG_RELATIVE_POINTERS) the distance from the entry. */
#ifdef CONFIG_X86_64
#define BUG_VALUE(value) value " - 2b"
#define BUG_POINTER(entry, value) ((unsigned long)(entry) + (s32)(value))
#else
#define BUG_VALUE(value) value
#define BUG_POINTER(entry, value) ((unsigned long)(value))
#endif

#define BUG()										\
do {											\
	asm volatile("1:	ud2\n"							\
		     ".pushsection __bug_table,\"a\"\n"					\
		     "2:	.long " BUG_VALUE("1b") ", " BUG_VALUE("%c0") ", %c1\n"	\
		     ".popsection"							\
		     : : "i" (__FILE__), "i" (__LINE__));				\
	__builtin_unreachable();							\
} while (0)

#endif
