/* Zone counters, the SMP side (mm/vmstat.c, 2.6.39). */
#include <linux/mm.h>
#include <linux/vmstat.h>

atomic_long_t vm_stat[NR_VM_ZONE_STAT_ITEMS];

#ifdef CONFIG_SMP
/* How far a CPU may drift before it folds: grows with the CPUs and the zone, in units of 128 MB. */
void refresh_zone_stat_thresholds(void)
{
	struct zone *zone;

	for_each_zone(zone) {
		int mem = zone->present_pages >> (27 - PAGE_SHIFT);
		int threshold = min(125, 2 * fls(num_online_cpus()) * (1 + fls(mem)));

		for (unsigned cpu = 0; cpu < NR_CPUS; cpu++)
			per_cpu_ptr(zone->pageset, cpu)->stat_threshold = threshold;
	}
}

/* Three steps: the caller keeps preemption and interrupts that update the same item away. */
void __mod_zone_page_state(struct zone *zone, enum zone_stat_item item, int delta)
{
	struct per_cpu_pageset *pcp = zone->pageset;
	s8 *p = &pcp->vm_stat_diff[item];
	long x = delta + this_cpu_read_s8(p);
	long t = this_cpu_read_s8(&pcp->stat_threshold);

	if (unlikely(x > t || x < -t)) {
		zone_page_state_add(x, zone, item);
		x = 0;
	}
	this_cpu_write_s8(p, x);
	trace_vmstat(zone, item);
}

static void __inc_zone_state(struct zone *zone, enum zone_stat_item item)
{
	struct per_cpu_pageset *pcp = zone->pageset;
	s8 *p = &pcp->vm_stat_diff[item];
	s8 v = this_cpu_inc_return_s8(p);
	s8 t = this_cpu_read_s8(&pcp->stat_threshold);

	if (unlikely(v > t)) {
		s8 overstep = t >> 1;

		zone_page_state_add(v + overstep, zone, item);
		this_cpu_write_s8(p, -overstep);
	}
	trace_vmstat(zone, item);
}

static void __dec_zone_state(struct zone *zone, enum zone_stat_item item)
{
	struct per_cpu_pageset *pcp = zone->pageset;
	s8 *p = &pcp->vm_stat_diff[item];
	s8 v = this_cpu_dec_return_s8(p);
	s8 t = this_cpu_read_s8(&pcp->stat_threshold);

	if (unlikely(v < -t)) {
		s8 overstep = t >> 1;

		zone_page_state_add(v - overstep, zone, item);
		this_cpu_write_s8(p, overstep);
	}
	trace_vmstat(zone, item);
}

void __inc_zone_page_state(struct page *page, enum zone_stat_item item)
{
	__inc_zone_state(page_zone(page), item);
}

void __dec_zone_page_state(struct page *page, enum zone_stat_item item)
{
	__dec_zone_state(page_zone(page), item);
}

/*
 * The variants anybody may call (CONFIG_CMPXCHG_LOCAL): an unlocked compare-exchange of this CPU's own byte repeats if an
 * interrupt or a preempting task got in between. What overflows is folded AFTER it. overstep_mode: 0 folds all, +1 and
 * -1 leave half a threshold behind on the other side.
 */
static void mod_state(struct zone *zone, enum zone_stat_item item, int delta, int overstep_mode)
{
	struct per_cpu_pageset *pcp = zone->pageset;
	s8 *p = &pcp->vm_stat_diff[item];
	long o, n, t, z;

	do {
		z = 0;
		t = this_cpu_read_s8(&pcp->stat_threshold);
		o = this_cpu_read_s8(p);
		n = delta + o;
		if (n > t || n < -t) {
			long overstep = overstep_mode * (t >> 1);

			z = n + overstep;
			n = -overstep;
		}
	} while (this_cpu_cmpxchg_s8(p, o, n) != o);
	if (z)
		zone_page_state_add(z, zone, item);
	trace_vmstat(zone, item);
}

void mod_zone_page_state(struct zone *zone, enum zone_stat_item item, int delta)
{
	mod_state(zone, item, delta, 0);
}

void inc_zone_page_state(struct page *page, enum zone_stat_item item)
{
	mod_state(page_zone(page), item, 1, 1);
}

void dec_zone_page_state(struct page *page, enum zone_stat_item item)
{
	mod_state(page_zone(page), item, -1, -1);
}

/* Fold what this CPU holds back: zones at once, the global sums in one batch at the end. */
void refresh_cpu_vm_stats(int cpu)
{
	int global_diff[NR_VM_ZONE_STAT_ITEMS] = { 0 };
	struct zone *zone;

	for_each_zone(zone) {
		struct per_cpu_pageset *pcp = per_cpu_ptr(zone->pageset, cpu);

		for (int i = 0; i < NR_VM_ZONE_STAT_ITEMS; i++) {
			unsigned long flags;

			if (!pcp->vm_stat_diff[i])
				continue;
			local_irq_save(flags);
			int v = pcp->vm_stat_diff[i];
			pcp->vm_stat_diff[i] = 0;
			local_irq_restore(flags);
			atomic_long_add(v, &zone->vm_stat[i]);
			global_diff[i] += v;
		}
	}
	for (int i = 0; i < NR_VM_ZONE_STAT_ITEMS; i++) {
		if (global_diff[i])
			atomic_long_add(global_diff[i], &vm_stat[i]);
	}
}
#endif

/* Would a request fail for lack of memory (towards 0) or for fragmentation (towards 1000)? -1000: it would not fail. */
int fragmentation_index(struct zone *zone, unsigned order)
{
	unsigned long free_pages = 0, free_blocks_total = 0, free_blocks_suitable = 0;

	for (unsigned o = 0; o < MAX_ORDER; o++) {
		unsigned long blocks = zone->free_area[o].nr_free;

		free_blocks_total += blocks;
		free_pages += blocks << o;
		if (o >= order)
			free_blocks_suitable += blocks << (o - order);
	}
	if (!free_blocks_total)
		return 0;
	if (free_blocks_suitable)
		return -1000;
	/* The request is a power of two: no 64-bit division. */
	unsigned long per_request = (u32)(((u64)free_pages * 1000) >> order);
	return 1000 - (int)((1000 + per_request) / free_blocks_total);
}
