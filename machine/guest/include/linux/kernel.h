#ifndef LINUX_KERNEL_H
#define LINUX_KERNEL_H

#include <linux/types.h>
#include <racetape/config.h>
#include <asm/bug.h>

#define barrier() asm volatile("" : : : "memory")
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define noinline __attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))
#define __aligned(n) __attribute__((aligned(n)))
#define __section(s) __attribute__((section(s)))
#ifdef CONFIG_X86_64
#define asmlinkage
#else
#define asmlinkage __attribute__((regparm(0)))
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGN(x, a) (((x) + (a) - 1) & ~((typeof(x))(a) - 1))
#define IS_ALIGNED(x, a) (((x) & ((a) - 1)) == 0)
#define min(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define max(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); a_ > b_ ? a_ : b_; })

#define BUG_ON(condition) do { if (unlikely(condition)) BUG(); } while (0)
#define VM_BUG_ON(condition) BUG_ON(condition)

#define EIO 5
#define EAGAIN 11
#define ENOMEM 12
#define EFAULT 14
#define EBUSY 16
#define EINVAL 22

void printk(const char *text);
void printk_hex(const char *label, unsigned long value);
void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);
bool parse_option(const char *name, char *value, size_t size);
u32 memparse(const char *text);

#endif
