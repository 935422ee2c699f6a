#ifndef LINUX_COMPACTION_H
#define LINUX_COMPACTION_H

#include <linux/mmzone.h>

/* Ordered: try_to_compact_pages() reports the highest. */
enum compact_result { COMPACT_SKIPPED, COMPACT_CONTINUE, COMPACT_PARTIAL, COMPACT_COMPLETE };

#define COMPACT_CLUSTER_MAX SWAP_CLUSTER_MAX
#define COMPACT_MAX_DEFER_SHIFT 6

unsigned long try_to_compact_pages(struct zonelist *zonelist, int order, gfp_t gfp_mask, bool sync);
unsigned long compaction_suitable(struct zone *zone, int order);

/* After a failure the next 1 << defer_shift attempts are skipped. */
static inline void defer_compaction(struct zone *zone)
{
	zone->compact_considered = 0;
	if (++zone->compact_defer_shift > COMPACT_MAX_DEFER_SHIFT)
		zone->compact_defer_shift = COMPACT_MAX_DEFER_SHIFT;
}

static inline bool compaction_deferred(struct zone *zone)
{
	unsigned long limit = 1UL << zone->compact_defer_shift;

	if (++zone->compact_considered > limit)
		zone->compact_considered = limit;
	return zone->compact_considered < limit;
}

#endif
