#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "access.h"
#include "decode.h"
#include "flags.h"
#include "memory.h"
#include "ledger.h"
#include "pool.h"

enum { LEAF_PAGES = 512 };

struct page {
	uint32_t references;
	uint8_t data[PAGE_SIZE];
};

struct leaf {
	uint32_t references;
	struct page *pages[LEAF_PAGES]; /* NULL: all zero */
};

struct page_tree {
	uint32_t leaf_count;
	struct leaf *leaves[]; /* NULL: all zero */
};

struct page_tree *page_tree_create(uint32_t page_count)
{
	uint32_t leaf_count = (page_count + LEAF_PAGES - 1) / LEAF_PAGES;
	struct page_tree *tree = calloc(1, sizeof(*tree) + leaf_count * sizeof(tree->leaves[0]));
	if (tree)
		tree->leaf_count = leaf_count;
	return tree;
}

static void page_put(struct page *page)
{
	if (page && --page->references == 0)
		free(page);
}

static void leaf_put(struct leaf *leaf)
{
	if (!leaf || --leaf->references)
		return;
	for (int i = 0; i < LEAF_PAGES; i++)
		page_put(leaf->pages[i]);
	free(leaf);
}

void page_tree_destroy(struct page_tree *tree)
{
	if (!tree)
		return;
	for (uint32_t i = 0; i < tree->leaf_count; i++)
		leaf_put(tree->leaves[i]);
	free(tree);
}

static void page_tree_assign(struct page_tree *to, const struct page_tree *from)
{
	assert(to->leaf_count == from->leaf_count);
	for (uint32_t i = 0; i < to->leaf_count; i++) {
		if (to->leaves[i] == from->leaves[i])
			continue;
		leaf_put(to->leaves[i]);
		to->leaves[i] = from->leaves[i];
		if (to->leaves[i])
			to->leaves[i]->references++;
	}
}

static const struct page *page_tree_get(const struct page_tree *tree, uint32_t frame)
{
	const struct leaf *leaf = tree->leaves[frame / LEAF_PAGES];
	return leaf ? leaf->pages[frame % LEAF_PAGES] : NULL;
}

/* A leaf of `tree` that nobody else refers to; NULL if memory is short. */
static struct leaf *leaf_own(struct page_tree *tree, uint32_t index)
{
	struct leaf *old = tree->leaves[index];
	if (old && old->references == 1)
		return old;
	struct leaf *leaf = calloc(1, sizeof(*leaf));
	if (!leaf)
		return NULL;
	leaf->references = 1;
	if (old) {
		memcpy(leaf->pages, old->pages, sizeof(leaf->pages));
		for (int i = 0; i < LEAF_PAGES; i++)
			if (leaf->pages[i])
				leaf->pages[i]->references++;
		leaf_put(old);
	}
	tree->leaves[index] = leaf;
	return leaf;
}

static bool save_page(struct memory *mem, uint32_t frame)
{
	struct leaf *leaf = leaf_own(mem->saved, frame / LEAF_PAGES);
	struct page *page = leaf ? malloc(sizeof(*page)) : NULL;
	if (!page)
		return false;
	page->references = 1;
	memcpy(page->data, mem->ram + (uint64_t)frame * PAGE_SIZE, PAGE_SIZE);
	page_put(leaf->pages[frame % LEAF_PAGES]);
	leaf->pages[frame % LEAF_PAGES] = page;
	return true;
}

struct snapshot *snapshot_take(struct machine *m)
{
	struct memory *mem = &m->memory;
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot) + m->cpu_count * sizeof(struct cpu_state));
	struct page_tree *pages = page_tree_create(mem->page_count);
	bool failed = !snapshot || !pages;
	if (failed || (snapshot->freed = pool_save(m, &failed), failed) || (snapshot->sums = ledger_save(m, &failed), failed))
		goto fail;
	for (uint32_t i = 0; i < mem->unsaved_count; i++)
		if (!save_page(mem, mem->unsaved[i]))
			goto fail; /* pages saved so far equal RAM, and all stay listed: nothing is lost */
	memory_forget_unsaved(mem);
	page_tree_assign(pages, mem->saved);
	snapshot->step = m->step;
	snapshot->cpu_count = m->cpu_count;
	snapshot->page_count = mem->page_count;
	snapshot->platform = m->s;
	if (m->pc)
		pc_canonicalise(m);
	snapshot->pc_state = m->pc_state;
	snapshot->auto_cpu = m->auto_cpu;
	snapshot->auto_loop = m->auto_loop;
	snapshot->clock_read = m->clock_read;
	snapshot->pages = pages;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		cpu_canonicalise(&m->cpus[i]);
		snapshot->cpus[i] = m->cpus[i].s;
		fast_forbid_writes(&m->cpus[i]);
	}
	return snapshot;
fail:
	if (snapshot) {
		pool_saved_free(snapshot->freed, mem->page_count);
		free(snapshot->sums);
	}
	free(snapshot);
	page_tree_destroy(pages);
	return NULL;
}

static void restore_page(struct machine *m, const struct page_tree *tree, uint32_t frame)
{
	struct memory *mem = &m->memory;
	uint8_t *to = mem->ram + (uint64_t)frame * PAGE_SIZE;
	const struct page *page = page_tree_get(tree, frame);
	if (page)
		memcpy(to, page->data, PAGE_SIZE);
	else
		memset(to, 0, PAGE_SIZE);
	if (!(mem->flags[frame] & PAGE_UNHASHED))
		mem->unhashed[mem->unhashed_count++] = frame;
	mem->flags[frame] |= PAGE_UNHASHED | PAGE_UNTAKEN | PAGE_WRITTEN;
	if (mem->flags[frame] & PAGE_CODE)
		decode_invalidate(m, (uint64_t)frame * PAGE_SIZE, PAGE_SIZE);
}

static void restore_leaf(struct machine *m, const struct page_tree *tree, uint32_t index)
{
	const struct leaf *from = m->memory.saved->leaves[index], *to = tree->leaves[index];
	if (from == to)
		return;
	for (uint32_t i = 0; i < LEAF_PAGES; i++)
		if ((from ? from->pages[i] : NULL) != (to ? to->pages[i] : NULL))
			restore_page(m, tree, index * LEAF_PAGES + i);
}

void snapshot_restore(struct machine *m, const struct snapshot *snapshot)
{
	struct memory *mem = &m->memory;
	assert(snapshot->cpu_count == m->cpu_count && snapshot->page_count == mem->page_count);
	for (uint32_t i = 0; i < mem->saved->leaf_count; i++)
		restore_leaf(m, snapshot->pages, i);
	for (uint32_t i = 0; i < mem->unsaved_count; i++)
		restore_page(m, snapshot->pages, mem->unsaved[i]);
	memory_forget_unsaved(mem);
	page_tree_assign(mem->saved, snapshot->pages);
	m->step = snapshot->step;
	m->s = snapshot->platform;
	m->pc_state = snapshot->pc_state;
	m->auto_cpu = snapshot->auto_cpu;
	pool_restore(m, snapshot->freed);
	ledger_restore(m, snapshot->sums);
	m->auto_loop = snapshot->auto_loop;
	m->clock_read = snapshot->clock_read;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		m->cpus[i].s = snapshot->cpus[i];
		cpu_refresh(&m->cpus[i]);
	}
}

void snapshot_destroy(struct snapshot *snapshot)
{
	if (!snapshot)
		return;
	page_tree_destroy(snapshot->pages);
	pool_saved_free(snapshot->freed, snapshot->page_count);
	free(snapshot->sums);
	free(snapshot);
}

uint64_t machine_state_hash(struct machine *m)
{
	uint64_t h = memory_hash(&m->memory);
	h = hash_bytes(h, &m->s, sizeof(m->s));
	if (m->pc)
		h = pc_hash(h, m);
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		cpu_canonicalise(&m->cpus[i]);
		h = hash_bytes(h, &m->cpus[i].s, sizeof(struct cpu_state));
		fast_forbid_writes(&m->cpus[i]);
	}
	return h;
}
