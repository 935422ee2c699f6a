/* Snapshots: page contents shared copy-on-write between all snapshots of a machine.
 *
 * A page tree is an array of reference-counted leaves of 512 reference-counted pages; an absent page is all zero.
 * Taking a snapshot copies only the pages written since the last one was taken or restored; restoring copies only
 * those and the ones in which the two trees differ.
 */
#ifndef RACETAPE_SNAPSHOT_H
#define RACETAPE_SNAPSHOT_H

#include "machine.h"

struct page_tree *page_tree_create(uint32_t page_count);
void page_tree_destroy(struct page_tree *tree);

struct snapshot {
	uint64_t step;
	uint32_t cpu_count;
	uint32_t page_count;
	uint32_t auto_cpu;
	struct auto_loop auto_loop;
	uint64_t clock_read;
	struct platform_state platform;
	struct pc_state pc_state;
	struct page_tree *pages;
	struct pool_leaf **freed; /* NULL: none */
	struct ledger_sums *sums; /* NULL: none */
	struct cpu_state cpus[]; /* [cpu_count] */
};

/* Returns NULL if memory is short. */
struct snapshot *snapshot_take(struct machine *m);
void snapshot_restore(struct machine *m, const struct snapshot *snapshot);
/* Accepts NULL. */
void snapshot_destroy(struct snapshot *snapshot);

/* 64-bit hash of all architectural state; the step number does not count. */
uint64_t machine_state_hash(struct machine *m);

#endif
