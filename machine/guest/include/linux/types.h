#ifndef LINUX_TYPES_H
#define LINUX_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef unsigned long size_t;
typedef _Bool bool;
typedef unsigned gfp_t;
typedef unsigned isolate_mode_t;

typedef struct { int counter; } atomic_t;
#ifdef CONFIG_X86_64
typedef struct { long counter; } atomic64_t;
typedef atomic64_t atomic_long_t;
#else
typedef atomic_t atomic_long_t;
#endif

struct list_head { struct list_head *next, *prev; };

#define true 1
#define false 0
#define NULL ((void *)0)

#define offsetof(type, member) __builtin_offsetof(type, member)
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#endif
