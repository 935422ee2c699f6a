#include "mmu.h"

#include "store_buffer.h"
#include "tlb.h"

/* Reads a page-table entry as the walker does: own store buffer first, then memory. */
static uint64_t entry_load(const struct cpu *c, uint64_t phys, uint32_t size, uint32_t *info)
{
	*info = 0;
	if (!memory_contains(&c->machine->memory, phys, size))
		return size_mask(size); /* unpopulated: all ones, as on a bus nobody drives */
	return store_buffer_read(c, phys, size, info);
}

static void page_fault(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint32_t cause)
{
	c->fault = (struct fault){
		.vector = VECTOR_PF,
		.has_error = true,
		.error = cause | (kind == ACCESS_WRITE ? PF_WRITE : 0) | (user ? PF_USER : 0),
		.has_addr = true,
		.addr = addr,
	};
}

static bool permitted(const struct cpu *c, uint64_t flags, enum access_kind kind, bool user)
{
	if (user && !(flags & PTE_US))
		return false;
	if (kind == ACCESS_WRITE && !(flags & PTE_RW))
		return !user && !(c->s.cr0 & CR0_WP);
	return true;
}

/* One locked update that sets `bits` in an entry, if they are still clear (SDM 4.8). */
static uint64_t entry_set_bits(struct cpu *c, uint64_t addr, uint64_t phys, uint64_t entry, uint64_t bits, uint32_t level)
{
	struct machine *m = c->machine;
	if ((entry & bits) == bits || !memory_contains(&m->memory, phys, 4))
		return entry;
	/* The update is locked. If the entry's latest value is still in the own buffer, that must reach memory first:
	 * see docs/decisions/0003-walker-updates.md. */
	if (store_buffer_overlaps(c, phys, 4))
		store_buffer_drain_all(c);
	entry |= bits;
	uint32_t value = (uint32_t)entry;
	memory_write(m, phys, &value, sizeof(value));
	tap_event(c, EVENT_ad_update, addr, phys, entry, 4, level);
	return entry;
}

/* 32-bit paging: page directory, then page table or a 4 MB page. */
static enum status walk_2level(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, struct tlb_entry **ret)
{
	uint32_t info;
	uint64_t pde_phys = (c->s.cr3 & 0xfffff000) + (addr >> 22 & 0x3ff) * 4;
	uint64_t pde = entry_load(c, pde_phys, 4, &info);
	tap_event(c, EVENT_walk, addr, pde_phys, pde, 4, 2 | info << 4);
	if (!(pde & PTE_P)) {
		page_fault(c, addr, kind, user, 0);
		return STATUS_FAULT;
	}
	bool large = (pde & PTE_PS) && (c->s.cr4 & CR4_PSE);
	uint64_t wanted = PTE_A | (kind == ACCESS_WRITE ? PTE_D : 0);
	if (large) {
		if (pde & PDE_LARGE_RESERVED) {
			page_fault(c, addr, kind, user, PF_PRESENT | PF_RESERVED);
			return STATUS_FAULT;
		}
		if (!permitted(c, pde, kind, user)) {
			page_fault(c, addr, kind, user, PF_PRESENT);
			return STATUS_FAULT;
		}
		pde = entry_set_bits(c, addr, pde_phys, pde, wanted, 2);
		*ret = tlb_fill(c, addr, pde & 0xffc00000, (pde & 0x1ff) & ~(c->s.cr4 & CR4_PGE ? 0 : PTE_G), 22);
		return STATUS_OK;
	}
	uint64_t pte_phys = (pde & 0xfffff000) + (addr >> PAGE_SHIFT & 0x3ff) * 4;
	uint64_t pte = entry_load(c, pte_phys, 4, &info);
	tap_event(c, EVENT_walk, addr, pte_phys, pte, 4, 1 | info << 4);
	if (!(pte & PTE_P)) {
		page_fault(c, addr, kind, user, 0);
		return STATUS_FAULT;
	}
	uint64_t flags = (pte & (PTE_P | PTE_D | PTE_G | PTE_A)) | (pte & pde & (PTE_RW | PTE_US));
	if (!permitted(c, flags, kind, user)) {
		page_fault(c, addr, kind, user, PF_PRESENT);
		return STATUS_FAULT;
	}
	entry_set_bits(c, addr, pde_phys, pde, PTE_A, 2);
	/* A directory entry that points to itself makes both the same word: read again what is there now. */
	if (pte_phys == pde_phys)
		pte = entry_load(c, pte_phys, 4, &info);
	pte = entry_set_bits(c, addr, pte_phys, pte, wanted, 1);
	flags |= pte & (PTE_A | PTE_D);
	if (!(c->s.cr4 & CR4_PGE))
		flags &= ~(uint64_t)PTE_G;
	*ret = tlb_fill(c, addr, pte & 0xfffff000, flags, 0);
	return STATUS_OK;
}

static void fast_fill(struct cpu *c, uint64_t addr, uint64_t frame, uint64_t flags, bool user)
{
	struct memory *mem = &c->machine->memory;
	if (!memory_contains(mem, frame, PAGE_SIZE))
		return; /* devices and holes always take the slow path */
	uint64_t page = addr & ~(uint64_t)(PAGE_SIZE - 1);
	struct fast_entry *f = &c->fast_rows[user][addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	bool readable = permitted(c, flags, ACCESS_READ, user);
	bool direct = (flags & PTE_D) && permitted(c, flags, ACCESS_WRITE, user) &&
		      (mem->flags[frame >> PAGE_SHIFT] & PAGE_DIRECT_MASK) == PAGE_DIRECT;
	f->read_tag = readable ? page : ~UINT64_C(0);
	f->write_tag = direct ? page : ~UINT64_C(0);
	f->host = mem->ram + frame;
	f->frame = frame;
}

enum status mmu_translate(struct cpu *c, uint64_t addr, enum access_kind kind, bool user, uint64_t *ret)
{
	if (!(c->s.cr0 & CR0_PG)) {
		*ret = addr & 0xffffffff;
		/* No translation, no rights, no dirty bits: every page is as good as dirty. */
		fast_fill(c, addr, *ret & ~(uint64_t)(PAGE_SIZE - 1), PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D, user);
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
		enum status status = walk_2level(c, addr, kind, user, &entry);
		if (status != STATUS_OK) {
			if (tlb_find(c, addr))
				tlb_invalidate_page(c, addr);
			return status;
		}
	}
	uint64_t in_page = entry->flags & PTE_PS ? addr & 0x3fffff : addr & (PAGE_SIZE - 1);
	*ret = entry->frame + in_page;
	fast_fill(c, addr, *ret & ~(uint64_t)(PAGE_SIZE - 1), entry->flags, user);
	return STATUS_OK;
}

bool mmu_peek(const struct cpu *c, uint64_t addr, uint64_t *ret)
{
	uint32_t info;
	addr &= 0xffffffff;
	*ret = addr;
	if (!(c->s.cr0 & CR0_PG))
		return true;
	uint64_t pde = entry_load(c, (c->s.cr3 & 0xfffff000) + (addr >> 22 & 0x3ff) * 4, 4, &info);
	if (!(pde & PTE_P))
		return false;
	if ((pde & PTE_PS) && (c->s.cr4 & CR4_PSE)) {
		*ret = (pde & 0xffc00000) + (addr & 0x3fffff);
		return true;
	}
	uint64_t pte = entry_load(c, (pde & 0xfffff000) + (addr >> PAGE_SHIFT & 0x3ff) * 4, 4, &info);
	*ret = (pte & 0xfffff000) + (addr & (PAGE_SIZE - 1));
	return pte & PTE_P;
}

bool mmu_peek_cached(struct cpu *c, uint64_t addr, uint64_t *ret)
{
	const struct tlb_entry *entry = c->s.cr0 & CR0_PG ? tlb_find(c, addr) : NULL;
	if (!entry)
		return mmu_peek(c, addr, ret);
	*ret = entry->frame + (entry->flags & PTE_PS ? addr & 0x3fffff : addr & (PAGE_SIZE - 1));
	return true;
}
