/* Linear memory accesses of a CPU: the fast path here, everything else in access.c.
 *
 * The fast path is taken when the page's translation is cached with the right to access it, the access does not cross
 * a page (or is aligned, which the tag comparison checks along with the page), and the store buffer is out of play.
 */
#ifndef RACETAPE_ACCESS_H
#define RACETAPE_ACCESS_H

#include "flags.h"
#include "memory.h"
#include "tap.h"

enum access_kind { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/* STATUS_OK or STATUS_FAULT (described in c->fault). `info` are extra EVENT_ bits; EVENT_IMPLICIT accesses are made
 * with supervisor rights. `size` is 1 to 8 bytes. */
enum status access_load_slow(struct cpu *c, uint64_t addr, uint32_t size, bool for_write, uint32_t info, uint64_t *ret);
enum status access_store_slow(struct cpu *c, uint64_t addr, uint32_t size, uint64_t value, uint32_t info);
/* Checks that `size` bytes can be written, without writing: for instructions that store several times. */
enum status access_probe_write(struct cpu *c, uint64_t addr, uint32_t size, bool implicit);

/* Drops all, or the entries of one page, of the derived translations. */
void fast_flush(struct cpu *c);
void fast_flush_page(struct cpu *c, uint64_t page);
/* Makes every next store go through the slow path once: pages have become clean, or got code. */
void fast_forbid_writes(struct cpu *c);

ALWAYS_INLINE uint64_t fast_tag(uint64_t addr, uint32_t size)
{
	return addr & (~(uint64_t)(PAGE_SIZE - 1) | (size - 1));
}

/* Whether the page of tag `tag` may be accessed directly: aligned, as one comparison tells, or within a cache line. */
ALWAYS_INLINE bool fast_hit(const struct cpu *c, uint64_t tag, uint64_t addr, uint32_t size)
{
	if (unlikely(c->buffered))
		return false;
	if (likely(tag == fast_tag(addr, size)))
		return true;
	return tag == fast_tag(addr, 1) && (addr & (CACHE_LINE_SIZE - 1)) + size <= CACHE_LINE_SIZE;
}

ALWAYS_INLINE enum status mem_load(struct cpu *c, uint64_t addr, uint32_t size, uint64_t *ret)
{
	const struct fast_entry *f = &c->fast[addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	if (unlikely(!fast_hit(c, f->read_tag, addr, size)))
		return access_load_slow(c, addr, size, false, 0, ret);
	uint32_t offset = (uint32_t)addr & (PAGE_SIZE - 1);
	*ret = bytes_load(f->host + offset, size);
	tap_event(c, EVENT_load, addr, f->frame + offset, *ret, size, c->access_info);
	return STATUS_OK;
}

/* The load of a read-modify-write: faults as the write would. */
ALWAYS_INLINE enum status mem_load_for_write(struct cpu *c, uint64_t addr, uint32_t size, uint64_t *ret)
{
	const struct fast_entry *f = &c->fast[addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	if (unlikely(!fast_hit(c, f->write_tag, addr, size)))
		return access_load_slow(c, addr, size, true, 0, ret);
	uint32_t offset = (uint32_t)addr & (PAGE_SIZE - 1);
	*ret = bytes_load(f->host + offset, size);
	tap_event(c, EVENT_load, addr, f->frame + offset, *ret, size, c->access_info);
	return STATUS_OK;
}

ALWAYS_INLINE enum status mem_store(struct cpu *c, uint64_t addr, uint32_t size, uint64_t value)
{
	const struct fast_entry *f = &c->fast[addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	if (unlikely(!fast_hit(c, f->write_tag, addr, size)))
		return access_store_slow(c, addr, size, value, 0);
	uint32_t offset = (uint32_t)addr & (PAGE_SIZE - 1);
	bytes_store(f->host + offset, size, value);
	tap_event(c, EVENT_store, addr, f->frame + offset, value & size_mask(size), size,
		  EVENT_DRAINED | c->access_info);
	return STATUS_OK;
}

#endif
