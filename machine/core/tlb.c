#include "tlb.h"

#include "access.h"
#include "mmu.h"
#include "visible.h"

static struct tlb_entry *small_slot(struct cpu *c, uint64_t addr)
{
	return &c->s.tlb_small[addr >> PAGE_SHIFT & (TLB_SMALL_SLOTS - 1)];
}

/* Slots are taken by the number of the page, of the size at hand. */
static struct tlb_entry *large_slot(struct cpu *c, uint64_t addr, uint32_t shift)
{
	return &c->s.tlb_large[addr >> shift & (TLB_LARGE_SLOTS - 1)];
}

static bool holds(const struct tlb_entry *entry, uint64_t addr, uint32_t shift)
{
	return entry->page == ((addr & ~((UINT64_C(1) << shift) - 1)) | 1) && entry->shift == shift;
}

/* The largest page that holds the address counts, if the guest has left several behind. */
static struct tlb_entry *find_large(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *entry = large_slot(c, addr, 30);
	if (unlikely(entry->shift == 30) && holds(entry, addr, 30))
		return entry;
	uint32_t shift = mmu_large_shift(c);
	entry = large_slot(c, addr, shift);
	return holds(entry, addr, shift) ? entry : NULL;
}

struct tlb_entry *tlb_find(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *large = find_large(c, addr);
	if (large)
		return large;
	struct tlb_entry *small = small_slot(c, addr);
	return small->page == ((addr & ~(uint64_t)(PAGE_SIZE - 1)) | 1) ? small : NULL;
}

static void drop(struct cpu *c, struct tlb_entry *entry)
{
	if (entry->shift > PAGE_SHIFT)
		fast_flush(c);
	else
		fast_flush_page(c, entry->page & ~UINT64_C(1));
	*entry = (struct tlb_entry){0};
}

static void evict(struct cpu *c, struct tlb_entry *entry)
{
	visible_save(c, entry, 0, 0);
	tap_event(c, EVENT_tlb_evict, entry->page & ~UINT64_C(1), 0, 0, 0, 0);
	drop(c, entry);
}

struct tlb_entry *tlb_fill(struct cpu *c, uint64_t addr, uint64_t frame, uint64_t flags, uint32_t shift)
{
	uint64_t page = addr & ~((UINT64_C(1) << shift) - 1);
	struct tlb_entry *entry = shift > PAGE_SHIFT ? large_slot(c, addr, shift) : small_slot(c, addr);
	if (entry->page && !holds(entry, addr, shift))
		evict(c, entry);
	/* The flags may be new (dirty bit set): derived entries made from the old ones must go. */
	if (entry->page) {
		visible_save(c, entry, 0, 0);
		drop(c, entry);
	}
	/* Pages of several sizes may hold one address, after the guest changed an upper entry. The largest counts (see
	 * find_large): derived entries must not remember what smaller ones said, and it must not hide a new smaller one. */
	if (shift > PAGE_SHIFT)
		fast_flush(c);
	struct tlb_entry *larger;
	while ((larger = find_large(c, addr)))
		evict(c, larger);
	visible_save(c, entry, 0, 0);
	*entry = (struct tlb_entry){.page = page | 1, .frame = frame, .flags = flags, .shift = shift};
	tap_event(c, EVENT_tlb_fill, page, frame, flags, shift, 0);
	return entry;
}

void tlb_invalidate_page(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *entry;
	while ((entry = tlb_find(c, addr))) {
		visible_save(c, entry, 0, 0);
		drop(c, entry);
	}
	tap_event(c, EVENT_tlb_invalidate, addr & ~(uint64_t)(PAGE_SIZE - 1), 0, 0, 0, 0);
}

void tlb_invalidate_all(struct cpu *c, bool global_too)
{
	for (int i = 0; i < TLB_SMALL_SLOTS; i++)
		if (global_too || !(c->s.tlb_small[i].flags & PTE_G))
			c->s.tlb_small[i] = (struct tlb_entry){0};
	for (int i = 0; i < TLB_LARGE_SLOTS; i++)
		if (global_too || !(c->s.tlb_large[i].flags & PTE_G))
			c->s.tlb_large[i] = (struct tlb_entry){0};
	fast_flush(c);
	tap_event(c, EVENT_tlb_invalidate, 0, 0, 0, 0, global_too ? 2 : 1);
}

bool tlb_evict(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *entry = tlb_find(c, addr);
	if (!entry)
		return false;
	evict(c, entry);
	return true;
}
