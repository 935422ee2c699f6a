#include "machine.h"

#include <stdlib.h>

#include "access.h"
#include "debug.h"
#include "decode.h"
#include "device.h"
#include "flags.h"
#include "memory.h"
#include "op.h"
#include "ledger.h"
#include "pool.h"
#include "segment.h"
#include "store_buffer.h"
#include "visible.h"

enum { EVENT_CAPACITY_DEFAULT = 1 << 16, BOOT_PARAMS = 0x10000 };

struct machine *machine_create(uint32_t cpu_count, uint64_t ram_bytes, uint32_t store_capacity)
{
	assert(cpu_count >= 1 && cpu_count <= CPU_MAX);
	assert(store_capacity >= 1 && store_capacity <= STORE_BUFFER_MAX);
	struct machine *m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->cpu_count = cpu_count;
	m->store_capacity = store_capacity;
	m->choices.on = true;
	m->cpus = calloc(cpu_count, sizeof(struct cpu));
	if (!m->cpus || !memory_init(&m->memory, ram_bytes))
		goto fail;
	m->code = decode_cache_create(m->memory.page_count);
	if (!m->code || !tap_set_capacity(&m->tap, EVENT_CAPACITY_DEFAULT))
		goto fail;
	for (uint32_t i = 0; i < cpu_count; i++) {
		struct cpu *c = &m->cpus[i];
		c->machine = m;
		c->number = i;
		cpu_start(c, 0);
		if (i)
			c->s.waiting = WAIT_START;
	}
	return m;
fail:
	machine_destroy(m);
	return NULL;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	visible_deinit(m);
	ledger_deinit(m);
	pool_deinit(m);
	memory_deinit(&m->memory);
	decode_cache_destroy(m->code);
	tap_deinit(&m->tap);
	console_deinit(&m->console);
	free(m->choices.records);
	free(m->cpus);
	free(m);
}

void cpu_start(struct cpu *c, uint64_t entry)
{
	struct apic apic = c->s.apic;
	c->s = (struct cpu_state){.rip = entry, .rflags = FLAG_ONE, .cr0 = CR0_PE | CR0_ET, .apic = apic};
	c->s.pat = UINT64_C(0x0007040600070406);
	c->s.dr[6] = DR6_FIXED;
	c->s.dr[7] = DR7_FIXED;
	flags_set(c, FLAG_ONE);
	c->s.shadow_mark = UINT64_MAX;
	c->s.gpr[RSI] = BOOT_PARAMS;
	for (uint32_t i = 0; i < SEGMENT_COUNT; i++)
		c->s.segment[i] = segment_flat(i == CS ? 0x10 : 0x18, i == CS);
	cpu_refresh(c);
}

void cpu_refresh(struct cpu *c)
{
	assert(!c->ahead);
	fast_flush(c);
	c->access_info = 0;
	c->watch_hits = 0;
	c->hold = false;
	c->store_first = 0;
	c->stores_in_code = c->s.store_count != 0;
	store_buffer_update_filter(c);
	cpu_update_mode(c);
}

void cpu_update_fast(struct cpu *c)
{
	/* Kept in a register: read back as one with its neighbours it would wait for the store. */
	bool buffered = c->s.store_count || c->hold;
	c->buffered = buffered;
	c->stop_flags = buffered ? OP_WAITS : 0;
	uint32_t row = c->careful ? 2 : cpu_privilege(c) == 3;
	c->fast_read = c->fast_rows[row];
	c->fast_write = c->fast_rows[buffered ? 2 : row];
	c->flat_read = c->flat ? c->fast_read : c->fast_rows[2];
	c->flat_write = c->flat ? c->fast_write : c->fast_rows[2];
}

static bool view_is_flat(const struct segment_view *view)
{
	return !view->base && !view->checked;
}

void cpu_update_mode(struct cpu *c)
{
	const struct segment_register *code = &c->s.segment[CS];
	bool long_code = cpu_long_mode(c) && code->flags & SEGMENT_64BIT;
	c->bits = long_code ? 64 : code->flags & SEGMENT_32BIT ? 32 : 16;
	c->linear_mask = long_code ? ~UINT64_C(0) : 0xffffffff;
	c->stack_mask = long_code ? ~UINT64_C(0) : c->s.segment[SS].flags & SEGMENT_32BIT ? 0xffffffff : 0xffff;
	c->code_limit = long_code ? ~UINT64_C(0) : code->limit;
	for (uint32_t i = 0; i < SEGMENT_COUNT; i++) {
		const struct segment_register *s = &c->s.segment[i];
		/* 64-bit code: only FS and GS have a base, and nothing has a limit (SDM vol. 3, 3.2.4). */
		c->view[i].base = !long_code || i == FS || i == GS ? s->base : 0;
		c->view[i].checked = !long_code && !(s->flags & SEGMENT_FLAT);
	}
	c->flat = c->stack_mask == c->linear_mask && view_is_flat(&c->view[DS]) && view_is_flat(&c->view[ES]) &&
		  view_is_flat(&c->view[SS]);
	c->careful = debug_in_use(c);
	cpu_update_fast(c);
}

void cpu_canonicalise(struct cpu *c)
{
	flags_canonicalise(c);
	store_buffer_compact(c);
	memset(c->s.store + c->s.store_count, 0, (STORE_BUFFER_SLOTS - c->s.store_count) * sizeof(c->s.store[0]));
	c->s.gpr[GPR_PAGE] = 0; /* the run loop sets it before anything uses it */
}
