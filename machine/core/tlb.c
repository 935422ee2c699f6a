#include "tlb.h"

#include "access.h"
#include "mmu.h"

static struct tlb_entry *small_slot(struct cpu *c, uint64_t addr)
{
	return &c->s.tlb_small[addr >> PAGE_SHIFT & (TLB_SMALL_SLOTS - 1)];
}

static struct tlb_entry *large_slot(struct cpu *c, uint64_t addr)
{
	return &c->s.tlb_large[addr >> 22 & (TLB_LARGE_SLOTS - 1)];
}

struct tlb_entry *tlb_find(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *large = large_slot(c, addr);
	if (large->page == ((addr & ~UINT64_C(0x3fffff)) | 1))
		return large;
	struct tlb_entry *small = small_slot(c, addr);
	if (small->page == ((addr & ~(uint64_t)(PAGE_SIZE - 1)) | 1))
		return small;
	return NULL;
}

static void drop(struct cpu *c, struct tlb_entry *entry)
{
	if (entry->flags & PTE_PS)
		fast_flush(c);
	else
		fast_flush_page(c, entry->page & ~UINT64_C(1));
	*entry = (struct tlb_entry){0};
}

struct tlb_entry *tlb_fill(struct cpu *c, uint64_t addr, uint64_t frame, uint64_t flags, uint32_t large_shift)
{
	uint32_t shift = large_shift ? large_shift : PAGE_SHIFT;
	uint64_t page = addr & ~((UINT64_C(1) << shift) - 1);
	struct tlb_entry *entry = large_shift ? large_slot(c, addr) : small_slot(c, addr);
	if (entry->page && entry->page != (page | 1)) {
		tap_event(c, EVENT_tlb_evict, entry->page & ~UINT64_C(1), 0, 0, 0, 0);
		drop(c, entry);
	}
	/* The flags may be new (dirty bit set): derived entries made from the old ones must go. */
	if (entry->page)
		drop(c, entry);
	/* Pages of both sizes may hold one address, after the guest changed a directory entry. The large one counts (see
	 * tlb_find), so derived entries must not remember what the small ones said, and it must not hide a new small one. */
	struct tlb_entry *large = large_slot(c, addr);
	if (large_shift) {
		fast_flush(c);
	} else if (large->page == ((addr & ~UINT64_C(0x3fffff)) | 1)) {
		tap_event(c, EVENT_tlb_evict, large->page & ~UINT64_C(1), 0, 0, 0, 0);
		drop(c, large);
	}
	*entry = (struct tlb_entry){.page = page | 1, .frame = frame, .flags = flags};
	tap_event(c, EVENT_tlb_fill, page, frame, flags, shift, 0);
	return entry;
}

void tlb_invalidate_page(struct cpu *c, uint64_t addr)
{
	struct tlb_entry *entry;
	while ((entry = tlb_find(c, addr)))
		drop(c, entry);
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
	tap_event(c, EVENT_tlb_evict, entry->page & ~UINT64_C(1), 0, 0, 0, 0);
	drop(c, entry);
	return true;
}
