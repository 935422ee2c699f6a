#include "access.h"

#include "apic.h"
#include "chain.h"
#include "debug.h"
#include "mmu.h"
#include "pool.h"
#include "store_buffer.h"
#include "visible.h"

void fast_flush(struct cpu *c)
{
	for (int row = 0; row < 3; row++)
		for (int i = 0; i < FAST_SLOTS; i++)
			c->fast_rows[row][i].read_tag = c->fast_rows[row][i].write_tag = ~UINT64_C(0);
	fetch_flush(c);
}

void fetch_flush(struct cpu *c)
{
	for (int i = 0; i < FETCH_SLOTS; i++)
		c->fetch_tag[i] = ~UINT64_C(0);
}

void fast_flush_page(struct cpu *c, uint64_t page)
{
	for (int row = 0; row < 2; row++) {
		struct fast_entry *f = &c->fast_rows[row][page >> PAGE_SHIFT & (FAST_SLOTS - 1)];
		if (f->read_tag == page || f->write_tag == page)
			f->read_tag = f->write_tag = ~UINT64_C(0);
	}
	uint64_t *tag = &c->fetch_tag[page >> PAGE_SHIFT & (FETCH_SLOTS - 1)];
	if (*tag == page)
		*tag = ~UINT64_C(0);
}

void fast_forbid_writes(struct cpu *c)
{
	for (int row = 0; row < 2; row++)
		for (int i = 0; i < FAST_SLOTS; i++)
			c->fast_rows[row][i].write_tag = ~UINT64_C(0);
}

/* A piece of an access that lies within one page and one cache line, or a whole locked or device access. */
struct piece {
	uint64_t addr;
	uint64_t phys;
	uint32_t size;
};

/* Bytes from `addr` that may go in one piece: an access is split where it leaves its cache line, so that no event and
 * no buffered store covers two lines. A locked one stays whole unless it leaves its page. */
static uint32_t piece_size(uint64_t addr, uint32_t size, bool locked)
{
	uint32_t unit = locked ? PAGE_SIZE : CACHE_LINE_SIZE;
	uint32_t left = unit - (uint32_t)(addr & (unit - 1));
	return size < left ? size : left;
}

static bool user_access(const struct cpu *c, uint32_t info)
{
	return cpu_privilege(c) == 3 && !(info & EVENT_IMPLICIT);
}

/* Of linear addresses: the CPU finds its own tables in all of the 64-bit space, whatever code runs. */
static uint64_t access_mask(const struct cpu *c, uint32_t info)
{
	return info & EVENT_IMPLICIT && cpu_long_mode(c) ? ~UINT64_C(0) : c->linear_mask;
}

/* Translates the whole access before any of it happens. At most two pieces, since size <= 8. */
static enum status translate_pieces(struct cpu *c, uint64_t addr, uint32_t size, enum access_kind kind, uint32_t info,
				    struct piece pieces[2], int *count)
{
	bool user = user_access(c, info);
	bool locked = c->access_info & EVENT_LOCKED;
	*count = 0;
	while (size) {
		assert(*count < 2);
		struct piece *p = &pieces[*count];
		p->addr = addr & access_mask(c, info);
		p->size = piece_size(addr, size, locked);
		enum status status = mmu_translate(c, p->addr, kind, user, &p->phys);
		if (status != STATUS_OK)
			return status;
		++*count;
		addr += p->size;
		size -= p->size;
	}
	return STATUS_OK;
}

static uint64_t piece_load(struct cpu *c, const struct piece *p, uint32_t info)
{
	struct machine *m = c->machine;
	uint64_t value = size_mask(p->size);
	if (memory_contains(&m->memory, p->phys, p->size)) {
		pool_look(c, POOL_LOAD, p->addr, p->phys);
		value = store_buffer_read(c, p->phys, p->size, &info);
	} else {
		/* Uncached: waits until the own stores are out. */
		store_buffer_drain_all(c);
		info |= EVENT_DEVICE;
		apic_read(c, p->phys, p->size, &value);
	}
	tap_event(c, EVENT_load, p->addr, p->phys, value, p->size, info);
	return value;
}

/* A linear address that is not canonical faults before anything is looked up (SDM vol. 1, 3.3.7.1). */
static bool canonical_range(const struct cpu *c, uint64_t addr, uint32_t size, uint32_t info)
{
	return access_mask(c, info) != ~UINT64_C(0) || (address_canonical(addr) && address_canonical(addr + size - 1));
}

static enum status raise_not_canonical(struct cpu *c, uint32_t info)
{
	c->fault = (struct fault){.vector = info & ACCESS_STACK ? VECTOR_SS : VECTOR_GP, .has_error = true};
	return STATUS_FAULT;
}

/* Whether others see a store as soon as it is made. */
static bool stores_at_once(const struct cpu *c, uint32_t info)
{
	return !c->buffered || info & EVENT_LOCKED;
}

/* Whether the run has to stop before an access. */
static bool visible_pieces(struct cpu *c, const struct piece *pieces, int count, bool writes, uint32_t info)
{
	bool stops = false;
	for (int i = 0; i < count; i++)
		stops |= visible_access(c, pieces[i].phys, pieces[i].size, writes, info);
	return stops;
}

enum status access_load_slow(struct cpu *c, uint64_t addr, uint32_t size, bool for_write, uint32_t info)
{
	struct piece pieces[2] = {{0}};
	int count;
	enum access_kind kind = for_write ? ACCESS_WRITE : ACCESS_READ;
	if (!canonical_range(c, addr, size, info))
		return raise_not_canonical(c, info);
	enum status status = translate_pieces(c, addr, size, kind, info, pieces, &count);
	if (status != STATUS_OK)
		return status;
	info = (info & 0xff) | c->access_info;
	if (visible_pieces(c, pieces, count, for_write && stores_at_once(c, info), info))
		return STATUS_VISIBLE;
	c->loaded = piece_load(c, &pieces[0], info);
	if (count == 2)
		c->loaded |= piece_load(c, &pieces[1], info) << pieces[0].size * 8;
	return STATUS_OK;
}

static void piece_store(struct cpu *c, const struct piece *p, uint64_t value, uint32_t info)
{
	struct machine *m = c->machine;
	value &= size_mask(p->size);
	if (!memory_contains(&m->memory, p->phys, p->size)) {
		store_buffer_drain_all(c);
		tap_event(c, EVENT_store, p->addr, p->phys, value, p->size, info | EVENT_DEVICE | EVENT_DRAINED);
		apic_write(c, p->phys, p->size, value);
		return;
	}
	pool_look(c, POOL_STORE, p->addr, p->phys);
	if (c->buffered && !(info & EVENT_LOCKED)) {
		/* Nothing waited for room for stores that the table does not announce (frames, accessed bits). */
		while (info & EVENT_IMPLICIT && c->s.store_count >= m->store_capacity) {
			visible_commit(c);
			store_buffer_drain_one(c);
		}
		tap_event(c, EVENT_store, p->addr, p->phys, value, p->size, info);
		store_buffer_push(c, p->addr, p->phys, p->size, value);
		return;
	}
	visible_save(c, NULL, p->phys, p->size);
	memory_write(m, p->phys, &value, p->size);
	tap_event(c, EVENT_store, p->addr, p->phys, value, p->size, info | EVENT_DRAINED);
}

enum status access_store_slow(struct cpu *c, uint64_t addr, uint32_t size, uint64_t value, uint32_t info)
{
	struct piece pieces[2] = {{0}};
	int count;
	if (!canonical_range(c, addr, size, info))
		return raise_not_canonical(c, info);
	enum status status = translate_pieces(c, addr, size, ACCESS_WRITE, info, pieces, &count);
	if (status != STATUS_OK)
		return status;
	info = (info & 0xff) | c->access_info;
	bool device = !memory_contains(&c->machine->memory, pieces[0].phys, pieces[0].size);
	if ((device || stores_at_once(c, info)) && visible_pieces(c, pieces, count, true, info))
		return STATUS_VISIBLE;
	piece_store(c, &pieces[0], value, info);
	if (count == 2)
		piece_store(c, &pieces[1], value >> pieces[0].size * 8, info);
	return STATUS_OK;
}

/* The pieces of a load of which each takes a step: those of earlier steps are remembered, one is made now. Everything is
 * translated before the first. */
static enum status load_pieces(struct cpu *c, uint64_t addr, uint32_t size, bool for_write, uint32_t info, bool last,
			       struct loads *loads)
{
	struct piece pieces[2] = {{0}};
	int count;
	enum access_kind kind = for_write ? ACCESS_WRITE : ACCESS_READ;
	uint64_t value = 0;
	if (!canonical_range(c, addr, size, info))
		return raise_not_canonical(c, info);
	for (uint32_t at = 0, number; at < size; at += number, loads->count++) {
		number = piece_size(addr + at, size - at, false);
		uint64_t part;
		if (loads->count < c->s.partial_count) {
			part = c->s.partial[loads->count] & size_mask(number); /* that of another instruction may be there now */
		} else {
			if (loads->made)
				return STATUS_PARTIAL;
			enum status status = translate_pieces(c, addr + at, size - at, kind, info, pieces, &count);
			if (status != STATUS_OK)
				return status;
			if (visible_pieces(c, pieces, 1, for_write && stores_at_once(c, info), info))
				return STATUS_VISIBLE;
			part = piece_load(c, &pieces[0], info & 0xff);
			loads->made = true;
			if (!last || at + number < size)
				c->s.partial[c->s.partial_count++] = part;
		}
		value |= part << at * 8;
	}
	c->loaded = value;
	if (last)
		partial_forget(c);
	return STATUS_OK;
}

/* What was cached of the page being executed may have gone with this access: the next instruction must be fetched anew. */
static void check_chain(struct cpu *c, const struct op *op, uint64_t run_end)
{
	bool page_lost = c->fetch_tag[c->page_linear >> PAGE_SHIFT & (FETCH_SLOTS - 1)] != c->page_linear;
	if (page_lost || c->machine->run_end != run_end || c->stores_in_code)
		chain_break(c, op);
}

/* While stores are buffered no access is direct, but most need no more than a look at the buffer: if the page's
 * translation is at hand and the access stays within a line. NULL if it is not so simple. */
static const struct fast_entry *find_buffered(struct cpu *c, uint64_t addr, uint32_t size, bool write)
{
	if (!c->buffered || c->careful || c->access_info)
		return NULL;
	bool user = cpu_privilege(c) == 3;
	const struct fast_entry *f = &c->fast_rows[user][addr >> PAGE_SHIFT & (FAST_SLOTS - 1)];
	uint64_t page = addr & ~(uint64_t)(PAGE_SIZE - 1);
	if ((addr & (CACHE_LINE_SIZE - 1)) + size > CACHE_LINE_SIZE)
		return NULL;
	if (unlikely((write ? f->write_tag : f->read_tag) != page))
		mmu_fill_cached(c, addr, user);
	return (write ? f->write_tag : f->read_tag) == page ? f : NULL;
}

/* Back from somebody who looked at memory: the chain goes on as it came. */
static void run_ahead_again(struct cpu *c, bool ahead)
{
	if (unlikely(ahead))
		store_buffer_run_ahead(c);
}

/* Makes room in a full buffer as a run with PLAN_ROOM does when its CPU is blocked, without leaving the chain: a step of
 * its own before that of `op`. False if the chain has no room for that step. */
static bool drain_in_chain(struct cpu *c, const struct op *op)
{
	struct machine *m = c->machine;
	uint64_t step = c->step_base + op->number;
	int64_t steps = (int64_t)(m->chain_end - step);
	/* A drain that may be the end of the run is for the run loop to make. */
	if (!m->makes_room || op == &c->single[0] || steps < 2 || pool_freed(m, store_buffer_entry(c, 0)->phys))
		return false;
	if (steps <= op->left) { /* the run ends within this block, now an instruction earlier */
		const struct op *end = op + (steps - 1);
		bool ends_before = m->broken >= op && m->broken <= end; /* else it was left behind in another block */
		if (!ends_before)
			chain_stop_at(m, end);
	}
	m->step = step;
	c->room_made = true;
	store_buffer_drain_one(c);
	c->step_base++;
	c->retired_base--;
	if (!c->ahead)
		store_buffer_run_ahead(c); /* the store that was in the way may be gone */
	return true;
}

/* Whether an instruction of a chain, which this store or read-modify-write begins, has to wait for room. */
static bool must_wait(struct cpu *c, const struct op *op)
{
	if (likely(!c->buffered || !c->machine->chain_end))
		return false;
	while (store_buffer_full(c)) /* by more than one, after a store over two lines */
		if (!drain_in_chain(c, op))
			return true;
	return false;
}

enum status access_load_op(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, bool for_write,
					   uint32_t info)
{
	if (for_write && must_wait(c, op))
		return STATUS_BLOCKED;
	const struct fast_entry *f = find_buffered(c, addr, size, for_write);
	if (f) {
		uint32_t forwarded = 0;
		uint64_t phys = addr + f->phys;
		bool perhaps = c->store_filter & store_filter_bits(phys, size);
		if (perhaps && !c->ahead)
			c->loaded = store_buffer_read(c, phys, size, &forwarded);
		else
			c->loaded = bytes_load_any(host_address(addr, f->host), size);
		if (perhaps && c->ahead)
			forwarded = store_buffer_look(c, phys, size);
		if (perhaps && !forwarded)
			store_buffer_update_filter(c);
		op_event(c, op, EVENT_load, addr, phys, c->loaded, size, forwarded);
		return STATUS_OK;
	}
	uint64_t run_end = c->machine->run_end;
	bool ahead = c->ahead;
	chain_sync(c, op);
	if (unlikely(c->careful) && canonical_range(c, addr, size, info) && debug_misaligned(c, addr, size))
		return STATUS_FAULT;
	info |= op->segment == SS ? ACCESS_STACK : 0;
	struct loads loads = {0};
	/* Not within a line: a direct load would not ask what has been loaded either. */
	bool parts = op->flags & OP_PARTIAL && piece_size(addr, size, false) < size;
	enum status status = parts ? load_pieces(c, addr, size, for_write, info, true, &loads)
				   : access_load_slow(c, addr, size, for_write, info);
	if (unlikely(c->careful) && status == STATUS_OK)
		debug_watch(c, addr, size, false);
	check_chain(c, op, run_end);
	run_ahead_again(c, ahead && status == STATUS_OK);
	return status;
}

enum status access_load_next(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, bool last, struct loads *loads,
			     uint64_t *ret)
{
	if (unlikely(c->careful) && canonical_range(c, addr, size, 0) && debug_misaligned(c, addr, size))
		return STATUS_FAULT;
	enum status status = load_pieces(c, addr, size, false, op->segment == SS ? ACCESS_STACK : 0, last, loads);
	if (unlikely(c->careful) && status == STATUS_OK)
		debug_watch(c, addr, size, false);
	*ret = c->loaded;
	return status;
}

enum status access_store_op(struct cpu *c, const struct op *op, uint64_t addr, uint32_t size, uint64_t value,
					    uint32_t info)
{
	if (must_wait(c, op))
		return STATUS_BLOCKED;
	const struct fast_entry *f = find_buffered(c, addr, size, true);
	if (f) {
		uint64_t phys = addr + f->phys;
		op_event(c, op, EVENT_store, addr, phys, value & size_mask(size), size, 0);
		c->pc = c->page_linear + op->offset;
		if (c->ahead) {
			if (unlikely(c->store_first + c->s.store_count == STORE_BUFFER_SLOTS))
				store_buffer_compact(c);
			push_ahead(c, op, f, addr, size, value);
			if (c->ahead_filter)
				c->store_filter |= store_filter_bits(phys, size);
		} else {
			store_buffer_push(c, addr, phys, size, value);
		}
		return STATUS_OK;
	}
	uint64_t run_end = c->machine->run_end;
	bool ahead = c->ahead;
	chain_sync(c, op);
	if (unlikely(c->careful) && canonical_range(c, addr, size, info) && debug_misaligned(c, addr, size))
		return STATUS_FAULT;
	enum status status = access_store_slow(c, addr, size, value, info | (op->segment == SS ? ACCESS_STACK : 0));
	if (unlikely(c->careful) && status == STATUS_OK)
		debug_watch(c, addr, size, true);
	check_chain(c, op, run_end);
	run_ahead_again(c, ahead && status == STATUS_OK);
	return status;
}

enum status access_load_implicit(struct cpu *c, uint64_t addr, uint32_t size, uint64_t *ret)
{
	enum status status = access_load_slow(c, addr & access_mask(c, EVENT_IMPLICIT), size, false, EVENT_IMPLICIT);
	*ret = c->loaded;
	return status;
}

enum status access_probe_write(struct cpu *c, uint64_t addr, uint32_t size, bool implicit)
{
	uint32_t info = implicit ? EVENT_IMPLICIT : 0;
	bool user = user_access(c, info);
	uint64_t phys, last = addr + size - 1;
	if (!canonical_range(c, addr, size, info))
		return raise_not_canonical(c, ACCESS_STACK);
	enum status status = mmu_translate(c, addr & access_mask(c, info), ACCESS_WRITE, user, &phys);
	if (status == STATUS_OK && (addr ^ last) >> PAGE_SHIFT)
		status = mmu_translate(c, last & access_mask(c, info), ACCESS_WRITE, user, &phys);
	return status;
}
