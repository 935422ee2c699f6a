#include "mmu.h"

#include "pool.h"
#include "store_buffer.h"
#include "tlb.h"
#include "visible.h"

/* Reads a page-table entry as the walker does: own store buffer first, then memory. */
static uint64_t entry_load(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info)
{
	*info = 0;
	if (!memory_contains(&c->machine->memory, phys, size))
		return size_mask(size); /* unpopulated: all ones, as on a bus nobody drives */
	return store_buffer_read(c, phys, size, info);
}

uint64_t mmu_load_physical(struct cpu *c, uint64_t phys)
{
	uint32_t info;
	if (memory_contains(&c->machine->memory, phys, 8))
		pool_look(c, POOL_WALK, phys, phys);
	return entry_load(c, phys, 8, &info);
}

static void page_fault(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint32_t cause)
{
	/* A fetch is told apart only where pages can forbid it (SDM vol. 3, 4.7). */
	bool fetch = kind == ACCESS_FETCH && c->s.cr4 & CR4_PAE && c->s.efer & EFER_NXE;
	c->fault = (struct fault){
		.vector = VECTOR_PF,
		.has_error = true,
		.error = cause | (kind == ACCESS_WRITE ? PF_WRITE : 0) | (user ? PF_USER : 0) | (fetch ? PF_FETCH : 0),
		.has_addr = true,
		.addr = addr,
	};
}

static bool permitted(const struct cpu *c, uint64_t flags, enum access_kind kind, bool user)
{
	if (user && !(flags & PTE_US))
		return false;
	if (kind == ACCESS_FETCH && flags & PTE_NX)
		return false;
	if (kind == ACCESS_WRITE && !(flags & PTE_RW))
		return !user && !(c->s.cr0 & CR0_WP);
	return true;
}

/* The shape of the page tables in force. */
struct paging {
	uint32_t level_max;	/* where a walk starts: 2, or 4 */
	uint32_t index_bits;	/* of each level */
	uint32_t entry_size;	/* bytes */
	uint32_t large_level;	/* highest level whose entries may map a page; 1 if none above the table */
};

static struct paging paging_in_force(const struct cpu *c)
{
	if (cpu_long_mode(c))
		return (struct paging){.level_max = 4, .index_bits = 9, .entry_size = 8, .large_level = 3};
	if (c->s.cr4 & CR4_PAE)
		return (struct paging){.level_max = 2, .index_bits = 9, .entry_size = 8, .large_level = 2};
	return (struct paging){.level_max = 2, .index_bits = 10, .entry_size = 4, .large_level = c->s.cr4 & CR4_PSE ? 2 : 1};
}

/* Physical address of the first table; false if PAE's page-directory pointer is not present. */
static bool table_root(const struct cpu *c, uint64_t addr, uint64_t *ret)
{
	*ret = c->s.cr3 & PHYSICAL_FRAME;
	if (cpu_long_mode(c))
		return true;
	if (!(c->s.cr4 & CR4_PAE)) {
		*ret &= 0xfffff000;
		return true;
	}
	uint64_t pdpte = c->s.pdpte[addr >> 30 & 3];
	*ret = pdpte & PHYSICAL_FRAME;
	return pdpte & PTE_P;
}

enum walk_result { WALK_DONE, WALK_NOT_PRESENT, WALK_RESERVED, WALK_VISIBLE };
/* Who walks: the CPU, or somebody who only looks and leaves no trace. */
enum walker { WALKER_CPU, WALKER_PEEK };

/* A walk that came to a page, or as far as it came. */
struct walk {
	struct paging paging;
	uint64_t phys[5];  /* of the entry, by level */
	uint64_t entry[5]; /* by level */
	uint32_t level;	   /* of the last entry read */
	uint32_t shift;	   /* log2 of the size of what that entry maps */
	uint64_t flags;	   /* P, RW, US and NX as all levels together grant them; the rest from the last entry */
};

/* Reserved bits, by size of entry. 4 MB pages: CPUID announces no PSE-36, so bits 13 to 21 are (PAT, bit 12, is not). */
static bool reserved_set(const struct cpu *c, const struct walk *w, uint64_t entry, bool leaf)
{
	uint64_t reserved = 0;
	if (w->paging.entry_size == 8) {
		reserved = PHYSICAL_RESERVED | (c->s.efer & EFER_NXE ? 0 : PTE_NX);
		if (!cpu_long_mode(c))
			reserved |= UINT64_C(0x7ff0000000000000); /* ignored only in 4-level paging */
		if (w->level == 4)
			reserved |= PTE_PS;
		else if (w->level > w->paging.large_level)
			reserved |= PTE_PS;
	}
	if (leaf && w->level > 1)
		reserved |= ((UINT64_C(1) << w->shift) - 1) & ~UINT64_C(0x1fff);
	return entry & reserved;
}

static enum walk_result walk(struct cpu *c, uint64_t addr, enum walker walker, struct walk *w)
{
	uint64_t table;
	*w = (struct walk){.paging = paging_in_force(c), .flags = PTE_RW | PTE_US};
	if (!table_root(c, addr, &table))
		return WALK_NOT_PRESENT;
	for (w->level = w->paging.level_max;; w->level--) {
		uint32_t info, size = w->paging.entry_size, level = w->level;
		w->shift = PAGE_SHIFT + (level - 1) * w->paging.index_bits;
		w->phys[level] = table + (addr >> w->shift & ((1u << w->paging.index_bits) - 1)) * size;
		if (walker != WALKER_PEEK && visible_access(c, w->phys[level], size, false, 0))
			return WALK_VISIBLE;
		uint64_t entry = w->entry[level] = entry_load(c, w->phys[level], size, &info);
		if (walker != WALKER_PEEK && memory_contains(&c->machine->memory, w->phys[level], size))
			pool_look(c, POOL_WALK, addr, w->phys[level]);
		if (walker != WALKER_PEEK)
			tap_event(c, EVENT_walk, addr, w->phys[level], entry, size, level | info << 4);
		if (!(entry & PTE_P))
			return WALK_NOT_PRESENT;
		bool leaf = level == 1 || (entry & PTE_PS && level <= w->paging.large_level);
		if (reserved_set(c, w, entry, leaf))
			return WALK_RESERVED;
		uint64_t nx = w->paging.entry_size == 8 ? (w->flags | entry) & PTE_NX : 0;
		w->flags = (w->flags & entry & (PTE_RW | PTE_US)) | nx;
		if (leaf) {
			w->flags |= entry & (PTE_P | PTE_A | PTE_D | PTE_G | (level > 1 ? PTE_PS : 0));
			return WALK_DONE;
		}
		table = entry & PHYSICAL_FRAME;
	}
}

/* Physical address of the page that a finished walk found. */
static uint64_t walk_frame(const struct walk *w)
{
	return w->entry[w->level] & PHYSICAL_FRAME & ~((UINT64_C(1) << w->shift) - 1);
}

/* One locked update that sets `bits` in an entry, if they are still clear (SDM 4.8). False if the run has to stop before. */
static bool entry_set_bits(struct cpu *c, uint64_t addr, struct walk *w, uint32_t level, uint64_t bits)
{
	struct machine *m = c->machine;
	uint64_t phys = w->phys[level];
	uint32_t size = w->paging.entry_size;
	if ((w->entry[level] & bits) == bits || !memory_contains(&m->memory, phys, size))
		return true;
	/* The update is locked. If the entry's latest value is still in the own buffer, that must reach memory first:
	 * see docs/decisions/0003-walker-updates.md. */
	if (store_buffer_overlaps(c, phys, size)) {
		if (visible_flush(c))
			return false;
		store_buffer_drain_all(c);
	}
	visible_access(c, phys, size, true, EVENT_IMPLICIT);
	visible_save(c, NULL, phys, size);
	w->entry[level] |= bits;
	memory_write(m, phys, &w->entry[level], size);
	tap_event(c, EVENT_ad_update, addr, phys, w->entry[level], size, level);
	/* Tables that point to themselves make several levels the same word. */
	for (uint32_t other = 1; other <= w->paging.level_max; other++)
		if (w->phys[other] == phys)
			w->entry[other] = w->entry[level];
	return true;
}

/* Walks, checks, sets accessed and dirty bits, and caches the translation. */
static enum status walk_and_fill(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, struct tlb_entry **ret)
{
	struct walk w;
	enum walk_result result = walk(c, addr, WALKER_CPU, &w);
	if (result == WALK_VISIBLE)
		return STATUS_VISIBLE;
	if (result != WALK_DONE) {
		page_fault(c, addr, kind, user, result == WALK_RESERVED ? PF_PRESENT | PF_RESERVED : 0);
		return STATUS_FAULT;
	}
	if (!permitted(c, w.flags, kind, user)) {
		page_fault(c, addr, kind, user, PF_PRESENT);
		return STATUS_FAULT;
	}
	for (uint32_t level = w.paging.level_max; level > w.level; level--)
		if (!entry_set_bits(c, addr, &w, level, PTE_A))
			return STATUS_VISIBLE;
	if (!entry_set_bits(c, addr, &w, w.level, PTE_A | (kind == ACCESS_WRITE ? PTE_D : 0)))
		return STATUS_VISIBLE;
	w.flags |= w.entry[w.level] & (PTE_A | PTE_D);
	if (!(c->s.cr4 & CR4_PGE))
		w.flags &= ~(uint64_t)PTE_G;
	*ret = tlb_fill(c, addr, walk_frame(&w), w.flags, w.shift);
	return STATUS_OK;
}

static void fast_fill(struct cpu *c, uint64_t addr, uint64_t frame, uint64_t flags, bool user)
{
	struct memory *mem = &c->machine->memory;
	if (!memory_contains(mem, frame, PAGE_SIZE))
		return; /* devices and holes always take the slow path */
	uint64_t page = addr & ~(uint64_t)(PAGE_SIZE - 1);
	struct fast_entry *f = &c->fast_rows[user][addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	if (visible_page(c->machine, (uint32_t)(frame >> PAGE_SHIFT)) || pool_freed(c->machine, frame)) {
		f->read_tag = f->write_tag = ~UINT64_C(0);
		return;
	}
	bool readable = permitted(c, flags, ACCESS_READ, user);
	bool direct = (flags & PTE_D) && permitted(c, flags, ACCESS_WRITE, user) &&
		      (mem->flags[frame >> PAGE_SHIFT] & PAGE_DIRECT_MASK) == PAGE_DIRECT;
	f->read_tag = readable ? page : ~UINT64_C(0);
	f->write_tag = direct ? page : ~UINT64_C(0);
	f->host = (uintptr_t)(mem->ram + frame) - page;
	f->phys = frame - page;
}

/* What is fetched is not asked about again until its page is freed. */
static void fetch_look(struct cpu *c, uint64_t addr, enum access_kind kind, uint64_t phys)
{
	if (kind == ACCESS_FETCH && memory_contains(&c->machine->memory, phys, 1))
		pool_look(c, POOL_FETCH, addr, phys);
}

enum status mmu_translate(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint64_t *ret)
{
	if (!(c->s.cr0 & CR0_PG)) {
		*ret = addr;
		/* No translation, no rights, no dirty bits: every page is as good as dirty. */
		fast_fill(c, addr, *ret & ~(uint64_t)(PAGE_SIZE - 1), PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D, user);
		fetch_look(c, addr, kind, *ret);
		return STATUS_OK;
	}
	struct tlb_entry *entry = tlb_find(c, addr);
	if (entry && !permitted(c, entry->flags, kind, user)) {
		/* A cached translation that forbids the access faults as it stands, and the fault drops it (SDM
		 * 4.10.4.1): after a relaxation without INVLPG there is one spurious fault. */
		tlb_invalidate_page(c, addr);
		page_fault(c, addr, kind, user, PF_PRESENT);
		return STATUS_FAULT;
	}
	if (!entry || (kind == ACCESS_WRITE && !(entry->flags & PTE_D))) {
		enum status status = walk_and_fill(c, addr, kind, user, &entry);
		if (status != STATUS_OK) {
			if (status == STATUS_FAULT && tlb_find(c, addr))
				tlb_invalidate_page(c, addr);
			return status;
		}
	}
	*ret = entry->frame + (addr & ((UINT64_C(1) << entry->shift) - 1));
	fast_fill(c, addr, *ret & ~(uint64_t)(PAGE_SIZE - 1), entry->flags, user);
	fetch_look(c, addr, kind, *ret);
	return STATUS_OK;
}

void mmu_fill_cached(struct cpu *c, uint64_t addr, bool user)
{
	const struct tlb_entry *entry = c->s.cr0 & CR0_PG ? tlb_find(c, addr) : NULL;
	if (entry)
		fast_fill(c, addr, (entry->frame + (addr & ((UINT64_C(1) << entry->shift) - 1))) & ~(uint64_t)(PAGE_SIZE - 1),
			  entry->flags, user);
}

bool mmu_peek(struct cpu *c, uint64_t addr, uint64_t *ret)
{
	struct walk w;
	if (!cpu_long_mode(c))
		addr &= 0xffffffff;
	*ret = addr;
	if (!(c->s.cr0 & CR0_PG))
		return true;
	if (!address_canonical(addr) || walk(c, addr, WALKER_PEEK, &w) != WALK_DONE)
		return false;
	*ret = walk_frame(&w) + (addr & ((UINT64_C(1) << w.shift) - 1));
	return true;
}

bool mmu_peek_cached(struct cpu *c, uint64_t addr, uint64_t *ret)
{
	const struct tlb_entry *entry = c->s.cr0 & CR0_PG ? tlb_find(c, addr) : NULL;
	if (!entry)
		return mmu_peek(c, addr, ret);
	*ret = entry->frame + (addr & ((UINT64_C(1) << entry->shift) - 1));
	return true;
}
