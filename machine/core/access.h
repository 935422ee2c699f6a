/* Linear memory accesses of a CPU: the fast path here, everything else in access.c.
 *
 * The fast path is taken when the page's translation is cached with the right to access it, the access does not cross
 * a page (or is aligned, which the tag comparison checks along with the page); for loads, if no buffered store may cover
 * what is read; for stores, if nothing is buffered, or RAM is ahead (store_buffer.h).
 */
#ifndef RACETAPE_ACCESS_H
#define RACETAPE_ACCESS_H

#include "flags.h"
#include "memory.h"
#include "store_buffer.h"
#include "tap.h"

enum access_kind { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };
enum { ACCESS_STACK = 1 << 8 }; /* beside the EVENT_ bits */

/* STATUS_OK or STATUS_FAULT (described in c->fault). `info` are extra EVENT_ bits; EVENT_IMPLICIT accesses are made
 * with supervisor rights; ACCESS_STACK makes a bad address #SS instead of #GP. `size` is 1 to 8 bytes. The value loaded
 * is left in c->loaded: a pointer to a local would keep handlers from calling each other in a chain. */
enum status access_load_slow(struct cpu *c, uint64_t addr, uint32_t size, bool for_write, uint32_t info);
enum status access_store_slow(struct cpu *c, uint64_t addr, uint32_t size, uint64_t value, uint32_t info);
/* The same on behalf of the instruction `op` in a chain: STATUS_BLOCKED if it has to wait for the store buffer. */
enum status access_load_op(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, bool for_write,
					   uint32_t info);
enum status access_store_op(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t value, uint32_t info);
/* Of instructions that load twice: the loads of one execution, in order, each of at most two pieces, one piece a step.
 * STATUS_PARTIAL: this step has made its load, the instruction has to start again, with a new `loads`. `last`: the
 * instruction loads no more. */
struct loads {
	uint32_t count; /* pieces so far */
	bool made;	/* one of them in this step */
};
enum status access_load_next(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, bool last, struct loads *loads,
			     uint64_t *ret);
/* access_load_slow for a supervisor structure (descriptor tables, TSS). */
enum status access_load_implicit(struct cpu *c, uint64_t addr, uint32_t size, uint64_t *ret);
/* Checks that `size` bytes can be written, without writing: for instructions that store several times. */
enum status access_probe_write(struct cpu *c, uint64_t addr, uint32_t size, bool implicit);

/* Drops all, or the entries of one page, of the derived translations. */
void fast_flush(struct cpu *c);
void fast_flush_page(struct cpu *c, uint64_t page);
/* Makes every next store go through the slow path once: pages have become clean, or got code. */
void fast_forbid_writes(struct cpu *c);
/* Drops what is known of the pages instructions come from. */
void fetch_flush(struct cpu *c);

/* 48-bit linear addresses: bits 63..47 are equal. */
ALWAYS_INLINE bool address_canonical(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

ALWAYS_INLINE uint64_t fast_tag(uint64_t addr, uint32_t size)
{
	return addr & (~(uint64_t)(PAGE_SIZE - 1) | (size - 1));
}

/* Whether the page of tag `tag` may be accessed directly: aligned, as one comparison tells, or within a cache line. */
ALWAYS_INLINE bool fast_hit(uint64_t tag, uint64_t addr, uint32_t size)
{
	if (likely(tag == fast_tag(addr, size)))
		return true;
	return tag == fast_tag(addr, 1) && (addr & (CACHE_LINE_SIZE - 1)) + size <= CACHE_LINE_SIZE;
}

/* The same for a load; no buffered store may cover what it reads: see cpu->store_filter, which linear addresses serve
 * as well. */
ALWAYS_INLINE bool fast_hit_load(const struct cpu *c, uint64_t tag, uint64_t addr, uint32_t size)
{
	if (likely(tag == fast_tag(addr, size)))
		return likely(!(c->store_filter >> (addr >> 3 & 63) & 1));
	return fast_hit(tag, addr, size) && !c->store_filter;
}

ALWAYS_INLINE const struct fast_entry *fast_find(const struct fast_entry *rows, uint64_t addr)
{
	return &rows[addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
}

ALWAYS_INLINE uint8_t *host_address(uint64_t addr, uint64_t host)
{
	return (uint8_t *)(uintptr_t)(addr + host);
}

/* fast_entry.host, guessed: an instruction mostly loads where the distance from linear to host addresses is what it was
 * the time before. So the host need not wait for the entry, which depends on the address, before it can load: chains of
 * pointers take two thirds of the time. */
ALWAYS_INLINE uint64_t host_of_load(const struct op *op, const struct fast_entry *f)
{
	uint64_t host = op->host;
	if (unlikely(host != f->host))
		((struct op *)op)->host = host = f->host;
	__asm__("" : "+r"(host)); /* or the compiler would see that the two are equal and wait for the entry */
	return host;
}

/* An event of the instruction `op` in a chain. */
ALWAYS_INLINE void op_event(struct cpu *c, const struct op *op, enum event_kind kind, uint64_t addr, uint64_t phys,
			    uint64_t value, uint32_t size, uint32_t info)
{
	struct tap *tap = &c->machine->tap;
	if (likely(!tap->on))
		return;
	struct event *row = tap_row(tap);
	row->addr = addr;
	row->phys = phys;
	row->value = value;
	ONE_AFTER_THE_OTHER;
	row->step = c->step_base + op->number;
	ONE_AFTER_THE_OTHER;
	row->pc = c->page_linear + op->offset;
	ONE_AFTER_THE_OTHER;
	row->cpu = (uint8_t)c->number;
	row->kind = (uint8_t)kind;
	row->size = (uint8_t)size;
	row->info = (uint8_t)info;
}

/* The oldest store drains, in a step before `op`. */
ALWAYS_INLINE void op_event_drain(struct cpu *c, const struct op *op)
{
	struct tap *tap = &c->machine->tap;
	if (likely(!tap->on))
		return;
	struct event *row = tap_row(tap);
	const struct store_entry *oldest = &c->s.store[c->store_first];
	row->step = c->step_base + op->number;
	ONE_AFTER_THE_OTHER;
	row->addr = oldest->addr;
	ONE_AFTER_THE_OTHER;
	row->phys = oldest->phys;
	ONE_AFTER_THE_OTHER;
	row->value = oldest->value;
	ONE_AFTER_THE_OTHER;
	row->pc = oldest->pc;
	ONE_AFTER_THE_OTHER;
	row->size = (uint8_t)oldest->size;
	row->cpu = (uint8_t)c->number;
	row->kind = EVENT_drain;
	row->info = 0;
}

/* Whether a direct store may be made with RAM ahead. If the buffer is full its oldest store drains, a step of its own before
 * `op`, as access.c does it in the general case. */
ALWAYS_INLINE bool room_ahead(struct cpu *c, const struct op *op)
{
	if (c->store_first + c->s.store_count >= c->ahead_slots)
		return false;
	ONE_AFTER_THE_OTHER;
	if (likely(c->s.store_count >= c->ahead_capacity)) {
		if (c->s.store_count > c->ahead_capacity || c->ahead_end - c->step_base <= op->number + op->left)
			return false;
		ONE_AFTER_THE_OTHER;
		op_event_drain(c, op);
		c->room_made = true;
		c->store_first++;
		c->s.store_count--;
		c->step_base++;
		c->retired_base--;
		ONE_AFTER_THE_OTHER;
	}
	return true;
}

/* Buffers a store of `op` with RAM ahead; there is a slot for it. */
ALWAYS_INLINE void push_ahead(struct cpu *c, const struct op *op, const struct fast_entry *f, uint64_t addr, uint32_t size,
			      uint64_t value)
{
	uint32_t slot = c->store_first + c->s.store_count;
	c->store_behind[slot] = bytes_load_any(host_address(addr, f->host), size);
	ONE_AFTER_THE_OTHER;
	bytes_store_any(host_address(addr, f->host), size, value);
	ONE_AFTER_THE_OTHER;
	struct store_entry *entry = &c->s.store[slot];
	entry->phys = addr + f->phys;
	ONE_AFTER_THE_OTHER;
	entry->addr = addr;
	entry->value = value & size_mask(size);
	entry->size = size;
	ONE_AFTER_THE_OTHER;
	entry->pc = c->page_linear + op->offset;
	c->s.store_count++;
	ONE_AFTER_THE_OTHER;
	c->store_filter |= c->ahead_filter << (addr >> 3 & 63);
}

#ifdef ADDRESS_FLAT
#define ROWS_READ(c) ((c)->flat_read)
#define ROWS_WRITE(c) ((c)->flat_write)
#else
#define ROWS_READ(c) ((c)->fast_read)
#define ROWS_WRITE(c) ((c)->fast_write)
#endif

/* A direct store of a CPU whose stores are held. */
ALWAYS_INLINE enum status store_ahead(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t value)
{
	__asm__("" : "+r"(addr), "+r"(value)); /* keep nothing else that was worked out for the direct access */
	const struct fast_entry *f = fast_find(ROWS_READ(c), addr);
	if (unlikely(f->write_tag != fast_tag(addr, size) || !room_ahead(c, op)))
		return STATUS_REDO;
	ONE_AFTER_THE_OTHER;
	push_ahead(c, op, f, addr, size, value);
	ONE_AFTER_THE_OTHER;
	op_event(c, op, EVENT_store, addr, addr + f->phys, value & size_mask(size), size, 0);
	return STATUS_OK;
}

/* Handlers exist more than once (op.h): with ACCESS_DIRECT defined, an access is a comparison and a host access, or
 * STATUS_REDO; with ADDRESS_FLAT, too, segments are known to be flat where an entry is found. */
#ifdef ACCESS_DIRECT
#define ACCESS_MISS(call) return STATUS_REDO
#define ACCESS_INFO(c) 0
#define HOST_OF_LOAD(op, f) host_of_load(op, f)
#define STORE_MISS(c, op, addr, size, value, info) return store_ahead(c, op, addr, size, value)
#else
#define STORE_MISS(c, op, addr, size, value, info) return access_store_op(c, op, addr, size, value, info)
#define ACCESS_MISS(call) return call
#define ACCESS_INFO(c) ((c)->access_info)
#define HOST_OF_LOAD(op, f) ((f)->host)
#endif

ALWAYS_INLINE enum status access_load_result(struct cpu *c, enum status status, uint64_t *ret)
{
	*ret = c->loaded;
	return status;
}

ALWAYS_INLINE enum status mem_load_info(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint32_t info,
					uint64_t *ret)
{
	const struct fast_entry *f = fast_find(ROWS_READ(c), addr);
	(void)info;
	if (unlikely(!fast_hit_load(c, f->read_tag, addr, size)))
		ACCESS_MISS(access_load_result(c, access_load_op(c, op, addr, size, false, info), ret));
	*ret = bytes_load(host_address(addr, HOST_OF_LOAD(op, f)), size);
	op_event(c, op, EVENT_load, addr, addr + f->phys, *ret, size, ACCESS_INFO(c));
	return STATUS_OK;
}

ALWAYS_INLINE enum status mem_load(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t *ret)
{
	return mem_load_info(c, op, addr, size, 0, ret);
}

/* The load of a read-modify-write: faults as the write would. */
ALWAYS_INLINE enum status mem_load_for_write(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t *ret)
{
	const struct fast_entry *f = fast_find(ROWS_WRITE(c), addr);
	if (unlikely(!fast_hit(f->write_tag, addr, size))) {
#ifdef ACCESS_DIRECT
		f = fast_find(ROWS_READ(c), addr);
		bool forwarded = c->store_filter >> (addr >> 3 & 63) & 1;
		if (unlikely(f->write_tag != fast_tag(addr, size) || forwarded || !room_ahead(c, op)))
			return STATUS_REDO; /* the store that follows will not */
#else
		return access_load_result(c, access_load_op(c, op, addr, size, true, 0), ret);
#endif
	}
	*ret = bytes_load(host_address(addr, HOST_OF_LOAD(op, f)), size);
	op_event(c, op, EVENT_load, addr, addr + f->phys, *ret, size, ACCESS_INFO(c));
	return STATUS_OK;
}

ALWAYS_INLINE enum status mem_store_info(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint32_t info,
					 uint64_t value)
{
	const struct fast_entry *f = fast_find(ROWS_WRITE(c), addr);
	(void)info;
	if (unlikely(!fast_hit(f->write_tag, addr, size)))
		STORE_MISS(c, op, addr, size, value, info);
	bytes_store(host_address(addr, f->host), size, value);
	op_event(c, op, EVENT_store, addr, addr + f->phys, value & size_mask(size), size,
		 EVENT_DRAINED | ACCESS_INFO(c));
	return STATUS_OK;
}

ALWAYS_INLINE enum status mem_store(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t value)
{
	return mem_store_info(c, op, addr, size, 0, value);
}

#endif
