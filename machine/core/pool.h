/* The page pool: which pages the guest's allocator has, as the guest says with two tracepoints (docs/platform.md). Whoever
 * touches one of them between page_free and page_alloc uses a freed page, and a tentative run ends behind that step.
 *
 * A freed page has PAGE_FREED among its flags, which keeps it from direct accesses: nobody else pays. Who freed it and when is
 * kept in leaves of 512 frames that snapshots share, copied when they are written.
 *
 * The set is no architectural state: it is not hashed, and exact plans go on. They repeat what happened, and the access is part
 * of that.
 *
 * Stores that are held: one into a freed page is noticed when it is made. One made before the page was freed, and drained
 * afterwards, is noticed when it drains, unless the CPU that made it is the one that freed the page: then it is ahead, in the same
 * buffer, of whatever makes the page available to others. Nothing orders that of another CPU before the free, or it would have
 * drained. */
#ifndef RACETAPE_POOL_H
#define RACETAPE_POOL_H

#include "memory.h"

enum pool_access { POOL_NONE, POOL_LOAD, POOL_STORE, POOL_DRAIN, POOL_WALK, POOL_FETCH, POOL_FREE };

/* Makes frames [first, first + count) the pool, whose `struct page`s of `page_size` bytes lie at linear address `pages`; with
 * `count` 0 there is none. None of them is freed now. False if memory is short: then there is no pool. */
bool pool_set(struct machine *m, const struct pool *pool);
void pool_deinit(struct machine *m);
/* No page is freed any more, as far as is known. */
void pool_forget(struct machine *m);
/* Tracepoint `op` says that pages are handed out or given back. */
void pool_trace(struct cpu *c, const struct op *op);
/* `phys` lies in a freed page: notes the access, and ends a tentative run behind the current step. */
void pool_use(struct cpu *c, enum pool_access access, uint64_t addr, uint64_t phys, uint64_t pc);
/* A held store to a freed page drains. */
void pool_drain(struct cpu *c, const struct store_entry *entry);

/* What snapshots keep: NULL if there is no pool, or memory is short (*failed). */
struct pool_leaf **pool_save(const struct machine *m, bool *failed);
/* Accepts NULL. */
void pool_saved_free(struct pool_leaf **saved, uint32_t page_count);
void pool_restore(struct machine *m, struct pool_leaf *const *saved);

ALWAYS_INLINE bool pool_freed(const struct machine *m, uint64_t phys)
{
	return unlikely(m->memory.flags[phys >> PAGE_SHIFT] & PAGE_FREED);
}

/* An access within one page of RAM. */
ALWAYS_INLINE void pool_look(struct cpu *c, enum pool_access access, uint64_t addr, uint64_t phys)
{
	if (pool_freed(c->machine, phys))
		pool_use(c, access, addr, phys, c->pc);
}

ALWAYS_INLINE bool pool_concerns(const struct machine *m, uint32_t trace)
{
	return unlikely(m->pool.count) && (trace == m->pool.alloc || trace == m->pool.free);
}

#endif
