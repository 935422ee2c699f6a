#include "pool.h"

#include <stdlib.h>

#include "access.h"
#include "chain.h"
#include "visible.h"

enum { LEAF_FRAMES = 512 };

/* Of each frame: 0 if it is not freed, else step << 4 | CPU << 1 | 1. */
struct pool_leaf {
	uint32_t references;
	uint64_t freed[LEAF_FRAMES];
};

static uint32_t leaf_count(uint32_t page_count)
{
	return (page_count + LEAF_FRAMES - 1) / LEAF_FRAMES;
}

static void leaf_put(struct pool_leaf *leaf)
{
	if (leaf && --leaf->references == 0)
		free(leaf);
}

/* The leaf of `frame`, which nobody else refers to; NULL if memory is short. */
static struct pool_leaf *leaf_own(struct machine *m, uint32_t frame)
{
	struct pool_leaf **at = &m->pool.leaves[frame / LEAF_FRAMES], *old = *at;
	if (old && old->references == 1)
		return old;
	struct pool_leaf *leaf = calloc(1, sizeof(*leaf));
	if (!leaf)
		return NULL;
	if (old) {
		*leaf = *old;
		leaf_put(old);
	}
	leaf->references = 1;
	*at = leaf;
	return leaf;
}

static void flags_update(struct machine *m, uint32_t index)
{
	const struct pool_leaf *leaf = m->pool.leaves[index];
	for (uint32_t i = 0, frame = index * LEAF_FRAMES; i < LEAF_FRAMES && frame < m->memory.page_count; i++, frame++) {
		uint8_t flags = m->memory.flags[frame] & (uint8_t)~PAGE_FREED;
		m->memory.flags[frame] = flags | (leaf && leaf->freed[i] ? PAGE_FREED : 0);
	}
}

void pool_restore(struct machine *m, struct pool_leaf *const *saved)
{
	struct pool *pool = &m->pool;
	pool->use = pool->met = (struct pool_use){0};
	for (uint32_t i = 0; pool->count && i < leaf_count(m->memory.page_count); i++) {
		struct pool_leaf *leaf = saved ? saved[i] : NULL;
		if (leaf == pool->leaves[i])
			continue;
		leaf_put(pool->leaves[i]);
		pool->leaves[i] = leaf;
		if (leaf)
			leaf->references++;
		flags_update(m, i);
	}
}

void pool_forget(struct machine *m)
{
	pool_restore(m, NULL);
}

struct pool_leaf **pool_save(const struct machine *m, bool *failed)
{
	const struct pool *pool = &m->pool;
	uint32_t count = leaf_count(m->memory.page_count);
	*failed = false;
	if (!pool->count)
		return NULL;
	struct pool_leaf **saved = malloc(count * sizeof(struct pool_leaf *));
	*failed = !saved;
	for (uint32_t i = 0; saved && i < count; i++) {
		saved[i] = pool->leaves[i];
		if (saved[i])
			saved[i]->references++;
	}
	return saved;
}

void pool_saved_free(struct pool_leaf **saved, uint32_t page_count)
{
	for (uint32_t i = 0; saved && i < leaf_count(page_count); i++)
		leaf_put(saved[i]);
	free(saved);
}

void pool_deinit(struct machine *m)
{
	if (!m->pool.count)
		return;
	pool_forget(m);
	free(m->pool.leaves);
	m->pool = (struct pool){0};
}

bool pool_set(struct machine *m, const struct pool *pool)
{
	pool_deinit(m);
	if (!pool->count)
		return true;
	struct pool_leaf **leaves = calloc(leaf_count(m->memory.page_count), sizeof(struct pool_leaf *));
	if (!leaves)
		return false;
	m->pool = *pool;
	m->pool.leaves = leaves;
	return true;
}

/* Nobody may know these frames as ones that are accessed directly. */
static void withdraw(struct cpu *c, const struct op *op, uint32_t first, uint32_t count)
{
	struct machine *m = c->machine;
	bool code = false;
	for (uint32_t i = 0; i < count; i++)
		code |= m->memory.flags[first + i] & PAGE_CODE;
	uint64_t host = (uintptr_t)m->memory.ram + ((uint64_t)first << PAGE_SHIFT), size = (uint64_t)count << PAGE_SHIFT;
	for (uint32_t n = 0; n < m->cpu_count; n++) {
		for (uint32_t row = 0; row < 2; row++)
			for (uint32_t i = 0; i < FAST_SLOTS; i++) {
				struct fast_entry *f = &m->cpus[n].fast_rows[row][i];
				if (f->read_tag != ~UINT64_C(0) && f->read_tag + f->host - host < size)
					f->read_tag = f->write_tag = ~UINT64_C(0);
				else if (f->write_tag != ~UINT64_C(0) && f->write_tag + f->host - host < size)
					f->read_tag = f->write_tag = ~UINT64_C(0);
			}
		if (unlikely(code))
			fetch_flush(&m->cpus[n]);
	}
	if (unlikely(code))
		chain_break(c, op);
}

/* The frames that a tracepoint is about; false if it is about none of the pool. */
static bool pages_of(struct cpu *c, const struct op *op, uint32_t *first, uint32_t *count)
{
	const struct pool *pool = &c->machine->pool;
	uint64_t order = c->s.gpr[op->index], offset = c->s.gpr[op->base] - pool->pages, number = offset / pool->page_size;
	if (order >= 32 || offset % pool->page_size || number >= pool->count || UINT64_C(1) << order > pool->count - number)
		return false;
	*first = pool->first + (uint32_t)number;
	*count = UINT32_C(1) << order;
	return true;
}

void pool_trace(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	uint32_t first, count;
	if (!pages_of(c, op, &first, &count))
		return;
	bool ahead = c->ahead, freeing = (op->displacement & 0xffff) == m->pool.free;
	uint64_t run_end = m->run_end;
	chain_sync(c, op);
	for (uint32_t frame = first; frame < first + count; frame++) {
		struct pool_leaf *leaf = leaf_own(m, frame);
		if (!leaf) {
			m->pool.failed = true;
			return;
		}
		if (freeing && m->memory.flags[frame] & PAGE_FREED)
			pool_use(c, POOL_FREE, c->s.gpr[op->base], (uint64_t)frame << PAGE_SHIFT, c->pc);
		m->pool.shared_freed |= freeing && visible_page(m, frame);
		leaf->freed[frame % LEAF_FRAMES] = freeing ? m->step << 4 | c->number << 1 | 1 : 0;
		uint8_t flags = m->memory.flags[frame] & (uint8_t)~PAGE_FREED;
		m->memory.flags[frame] = flags | (freeing ? PAGE_FREED : 0);
	}
	if (freeing)
		withdraw(c, op, first, count);
	if (m->run_end != run_end)
		chain_break(c, op);
	if (ahead)
		store_buffer_run_ahead(c);
}

void pool_use(struct cpu *c, enum pool_access access, uint64_t addr, uint64_t phys, uint64_t pc)
{
	struct machine *m = c->machine;
	struct pool *pool = &m->pool;
	struct pool_use *use = pool->looks ? &pool->use : &pool->met;
	if (use == &pool->use && use->access)
		return;
	uint32_t frame = (uint32_t)(phys >> PAGE_SHIFT);
	uint64_t freed = pool->leaves[frame / LEAF_FRAMES]->freed[frame % LEAF_FRAMES];
	*use = (struct pool_use){.access = access, .cpu = c->number, .freed_by = freed >> 1 & (CPU_MAX - 1), .step = m->step,
				.freed_step = freed >> 4, .addr = addr, .phys = phys, .pc = pc};
	if (pool->looks)
		m->run_end = m->step + 1;
}

void pool_drain(struct cpu *c, const struct store_entry *entry)
{
	uint32_t frame = (uint32_t)(entry->phys >> PAGE_SHIFT);
	uint64_t freed = c->machine->pool.leaves[frame / LEAF_FRAMES]->freed[frame % LEAF_FRAMES];
	if ((freed >> 1 & (CPU_MAX - 1)) != c->number)
		pool_use(c, POOL_DRAIN, entry->addr, entry->phys, entry->pc);
}
