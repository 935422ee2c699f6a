/* Counters: a small difference first, folded into the zone's when it grows (mm/vmstat.c). */
#include "workload.h"

enum { THRESHOLD = 32 };

void zone_stat_mod(struct zone *zone, enum item item, int delta)
{
	int x = zone->diff[item] + delta;

	if (x > THRESHOLD || x < -THRESHOLD) {
		atomic_add(x, &zone->stat[item]);
		x = 0;
	}
	zone->diff[item] = (signed char)x;
}

long zone_stat_read(const struct zone *zone, enum item item)
{
	return zone->stat[item] + zone->diff[item];
}
