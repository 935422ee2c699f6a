/*
 * Tracepoints: long NOPs that carry an identifier and two registers (docs/platform.md). They change nothing on any
 * x86; the machine records them. No memory operand is dereferenced and nothing is clobbered. All are volatile, so
 * they keep their place among the counter updates and lock operations, which are volatile asm too.
 */
#ifndef RACETAPE_TRACEPOINT_H
#define RACETAPE_TRACEPOINT_H

#include <linux/types.h>

enum tracepoint {
	TP_NONE,
	TP_READY,
	TP_SCHED_SWITCH,
	TP_GHOST,
	TP_VMSTAT,
	TP_LOCK_ACQUIRE,
	TP_LOCK_RELEASE,
	TP_TASK_NEW,
	TP_TASK_EXIT,		/* task, 0: its last act */
	TP_MM_SWITCH,		/* previous mm, next mm */
	TP_PAGE_ALLOC,		/* first page, order: handed out, not yet touched */
	TP_PAGE_FREE,		/* first page, order: given back, no longer touched */
	TP_PAGE_ISOLATE,	/* page, zone whose lru_lock is held: taken off the LRU */
	TP_PAGE_PUTBACK,	/* page, 0: isolation about to end */
	TP_COMPACT_BEGIN,	/* zone, order */
	TP_COMPACT_END,		/* zone, result */
	TP_STALL,		/* zone, item: a reader found too many isolated pages and is about to sleep */
	TP_PMD_PUBLISH,		/* pmd slot, new value: a huge page is about to become visible */
	TP_FAULT,		/* address, error code */
	TP_SIGNAL,		/* task, signal */
};

#define TRACEPOINT_BASE 0x52540000

/* Registers that need no REX prefix: eight bytes on x86-64 too. */
#ifdef CONFIG_X86_64
#define TRACEPOINT_REGISTER "R"
#else
#define TRACEPOINT_REGISTER "r"
#endif

#define tracepoint(id, base, index)								\
	asm volatile("nopl %c0(%1,%2,1)"							\
		     : : "i" (TRACEPOINT_BASE | (id)),					\
		       TRACEPOINT_REGISTER ((unsigned long)(base)), TRACEPOINT_REGISTER ((unsigned long)(index)))

#define trace_ready()			tracepoint(TP_READY, 0, 0)
#define trace_sched_switch(prev, next)	tracepoint(TP_SCHED_SWITCH, prev, next)
#define trace_lock_acquire(lock)	tracepoint(TP_LOCK_ACQUIRE, lock, 0)
#define trace_lock_release(lock)	tracepoint(TP_LOCK_RELEASE, lock, 0)
#define trace_task_new(task)		tracepoint(TP_TASK_NEW, task, 0)
#define trace_task_exit(task)		tracepoint(TP_TASK_EXIT, task, 0)
#define trace_mm_switch(prev, next)	tracepoint(TP_MM_SWITCH, prev, next)
#define trace_page_alloc(page, order)	tracepoint(TP_PAGE_ALLOC, page, order)
#define trace_page_free(page, order)	tracepoint(TP_PAGE_FREE, page, order)
#define trace_page_isolate(page, zone)	tracepoint(TP_PAGE_ISOLATE, page, zone)
#define trace_page_putback(page)	tracepoint(TP_PAGE_PUTBACK, page, 0)
#define trace_compact_begin(zone, o)	tracepoint(TP_COMPACT_BEGIN, zone, o)
#define trace_compact_end(zone, ret)	tracepoint(TP_COMPACT_END, zone, ret)
#define trace_stall(zone, item)		tracepoint(TP_STALL, zone, item)
#define trace_pmd_publish(slot, pmd)	tracepoint(TP_PMD_PUBLISH, slot, pmd)
#define trace_fault(address, code)	tracepoint(TP_FAULT, address, code)
#define trace_signal(task, sig)		tracepoint(TP_SIGNAL, task, sig)

/* Before the counter: the truth about `item` in the zone that `page` really belongs to changes by `delta`. */
#define ghost(page, item, delta)	\
	tracepoint(TP_GHOST, page, ((u32)(item) << 24) | ((u32)(delta) & 0xffffff))
/* After the counter: `zone`'s `item` is up to date again. */
#define trace_vmstat(zone, item)	tracepoint(TP_VMSTAT, zone, item)

#endif
