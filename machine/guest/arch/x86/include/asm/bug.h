/* BUG() is a ud2 whose place the __bug_table section knows, as in arch/x86/include/asm/bug.h. */
#ifndef ASM_BUG_H
#define ASM_BUG_H

#include <linux/types.h>

struct bug_entry {
	u32 bug_addr;
	u32 file;
	u32 line;
};

#define BUG()										\
do {											\
	asm volatile("1:	ud2\n"							\
		     ".pushsection __bug_table,\"a\"\n"					\
		     "	.long 1b, %c0, %c1\n"						\
		     ".popsection"							\
		     : : "i" (__FILE__), "i" (__LINE__));				\
	__builtin_unreachable();							\
} while (0)

#endif
