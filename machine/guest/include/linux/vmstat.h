/*
 * Zone counters (include/linux/vmstat.h, 2.6.39). Each item lives in its zone and, summed, in vm_stat[]: two separate
 * atomics. SMP batches through per-CPU 8-bit differentials, so small negatives are legal there and readers clamp them
 * to 0. UP has neither batches nor clamp: what the counter says is what the reader gets, as an unsigned number. (A source
 * that defines VMSTAT_CLAMP has the clamp there, too: the code variant seed-clamp.)
 */
#ifndef LINUX_VMSTAT_H
#define LINUX_VMSTAT_H

#include <linux/mm.h>
#include <racetape/tracepoint.h>

extern atomic_long_t vm_stat[NR_VM_ZONE_STAT_ITEMS];

static inline void zone_page_state_add(long x, struct zone *zone, enum zone_stat_item item)
{
	atomic_long_add(x, &zone->vm_stat[item]);
	atomic_long_add(x, &vm_stat[item]);
}

static inline unsigned long global_page_state(enum zone_stat_item item)
{
	long x = atomic_long_read(&vm_stat[item]);
#ifdef CONFIG_SMP
	if (x < 0)
		x = 0;
#endif
	return x;
}

static inline unsigned long zone_page_state(struct zone *zone, enum zone_stat_item item)
{
	long x = atomic_long_read(&zone->vm_stat[item]);
#if defined(CONFIG_SMP) || defined(VMSTAT_CLAMP)
	if (x < 0)
		x = 0;
#endif
	return x;
}

/* With what the CPUs hold back, read without synchronisation. */
static inline unsigned long zone_page_state_snapshot(struct zone *zone, enum zone_stat_item item)
{
	long x = atomic_long_read(&zone->vm_stat[item]);
#ifdef CONFIG_SMP
	for (unsigned cpu = 0; cpu < num_online_cpus(); cpu++)
		x += per_cpu_ptr(zone->pageset, cpu)->vm_stat_diff[item];
	if (x < 0)
		x = 0;
#endif
	return x;
}

#ifdef CONFIG_SMP
void __mod_zone_page_state(struct zone *zone, enum zone_stat_item item, int delta);
void __inc_zone_page_state(struct page *page, enum zone_stat_item item);
void __dec_zone_page_state(struct page *page, enum zone_stat_item item);
void mod_zone_page_state(struct zone *zone, enum zone_stat_item item, int delta);
void inc_zone_page_state(struct page *page, enum zone_stat_item item);
void dec_zone_page_state(struct page *page, enum zone_stat_item item);
void refresh_cpu_vm_stats(int cpu);
void refresh_zone_stat_thresholds(void);
#else
static inline void __mod_zone_page_state(struct zone *zone, enum zone_stat_item item, int delta)
{
	zone_page_state_add(delta, zone, item);
	trace_vmstat(zone, item);
}

static inline void __inc_zone_state(struct zone *zone, enum zone_stat_item item)
{
	atomic_long_inc(&zone->vm_stat[item]);
	atomic_long_inc(&vm_stat[item]);
	trace_vmstat(zone, item);
}

static inline void __dec_zone_state(struct zone *zone, enum zone_stat_item item)
{
	atomic_long_dec(&zone->vm_stat[item]);
	atomic_long_dec(&vm_stat[item]);
	trace_vmstat(zone, item);
}

static inline void __inc_zone_page_state(struct page *page, enum zone_stat_item item)
{
	__inc_zone_state(page_zone(page), item);
}

static inline void __dec_zone_page_state(struct page *page, enum zone_stat_item item)
{
	__dec_zone_state(page_zone(page), item);
}

/* Single instructions: there is nothing an interrupt could split, so nothing is disabled. */
#define inc_zone_page_state __inc_zone_page_state
#define dec_zone_page_state __dec_zone_page_state
#define mod_zone_page_state __mod_zone_page_state

static inline void refresh_cpu_vm_stats(int cpu) { (void)cpu; }
static inline void refresh_zone_stat_thresholds(void) { }
#endif

#endif
