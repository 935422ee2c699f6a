#include "saved_state.h"

#include <stdlib.h>
#include <string.h>

#include "flags.h"
#include "memory.h"
#include "ledger.h"
#include "pool.h"

struct state_header {
	uint32_t version;
	uint32_t cpu_count;
	uint64_t step;
	struct platform_state platform;
};

size_t saved_state_size(const struct machine *m)
{
	return sizeof(struct state_header) + m->cpu_count * sizeof(struct cpu_state) + (m->pc ? sizeof(struct pc_state) : 0);
}

void saved_state_write(struct machine *m, uint8_t *to)
{
	struct state_header header = {STATE_VERSION, m->cpu_count, m->step, m->s};
	memcpy(to, &header, sizeof(header));
	to += sizeof(header);
	for (uint32_t i = 0; i < m->cpu_count; i++, to += sizeof(struct cpu_state)) {
		cpu_canonicalise(&m->cpus[i]);
		memcpy(to, &m->cpus[i].s, sizeof(struct cpu_state));
	}
	if (m->pc) {
		pc_canonicalise(m);
		memcpy(to, &m->pc_state, sizeof(m->pc_state));
	}
}

/* What comes from a file may be anything: only what the core relies on for its own safety is checked. */
static bool cpu_state_valid(const struct cpu_state *s)
{
	bool valid = s->store_count <= STORE_BUFFER_SLOTS && s->waiting <= WAIT_CHOICE && s->gpr[GPR_ZERO] == 0 && s->gpr[GPR_PAGE] == 0 &&
		     s->nmi_pending <= 1 && s->nmi_blocked <= 1 && s->repeating <= 1 && s->partial_count <= PARTIAL_MAX && s->zero == 0 &&
		     s->cf <= 1 && s->of <= 1 && !(s->rflags & FLAGS_ARITHMETIC);
	for (uint32_t i = 0; valid && i < PARTIAL_MAX; i++)
		valid = i < s->partial_count || s->partial[i] == 0;
	for (uint32_t i = 0; valid && i < STORE_BUFFER_SLOTS; i++)
		valid = i < s->store_count ? s->store[i].size >= 1 && s->store[i].size <= 8 : s->store[i].size == 0;
	return valid;
}

static bool stores_in_ram(const struct machine *m, const struct cpu_state *s)
{
	for (uint32_t i = 0; i < s->store_count; i++)
		if (!memory_contains(&m->memory, s->store[i].phys, s->store[i].size) ||
		    (s->store[i].phys & (CACHE_LINE_SIZE - 1)) + s->store[i].size > CACHE_LINE_SIZE)
			return false;
	return true;
}

static bool translation_valid(const struct tlb_entry *e, bool large)
{
	if (!e->page)
		return e->shift == 0;
	bool shift_valid = large ? e->shift == 21 || e->shift == 22 || e->shift == 30 : e->shift == PAGE_SHIFT;
	return shift_valid && !(e->frame & ((UINT64_C(1) << e->shift) - 1));
}

static bool translations_valid(const struct cpu_state *s)
{
	bool valid = true;
	for (int i = 0; i < TLB_SMALL_SLOTS; i++)
		valid = valid && translation_valid(&s->tlb_small[i], false);
	for (int i = 0; i < TLB_LARGE_SLOTS; i++)
		valid = valid && translation_valid(&s->tlb_large[i], true);
	return valid;
}

enum saved_state_result saved_state_read(struct machine *m, const uint8_t *from, size_t size)
{
	struct state_header header;
	if (size != saved_state_size(m))
		return SAVED_STATE_INVALID;
	memcpy(&header, from, sizeof(header));
	if (header.version != STATE_VERSION || header.cpu_count != m->cpu_count || header.step >> 62)
		return SAVED_STATE_INVALID;
	size_t states_size = m->cpu_count * sizeof(struct cpu_state);
	struct cpu_state *states = malloc(states_size);
	if (!states)
		return SAVED_STATE_NO_MEMORY;
	memcpy(states, from + sizeof(header), states_size);
	bool valid = true;
	struct pc_state pc_state = m->pc_state;
	if (m->pc) {
		memcpy(&pc_state, from + sizeof(header) + states_size, sizeof(pc_state));
		valid = pc_valid(&pc_state, header.step);
	}
	for (uint32_t i = 0; valid && i < m->cpu_count; i++)
		valid = cpu_state_valid(&states[i]) && stores_in_ram(m, &states[i]) && translations_valid(&states[i]);
	if (valid) {
		m->step = header.step;
		m->s = header.platform;
		m->pc_state = pc_state;
		m->auto_cpu = 0;
		ledger_restore(m, NULL);
		pool_forget(m);
		m->auto_loop = (struct auto_loop){0};
		m->clock_read = 0;
		for (uint32_t i = 0; i < m->cpu_count; i++) {
			m->cpus[i].s = states[i];
			cpu_refresh(&m->cpus[i]);
		}
	}
	free(states);
	return valid ? SAVED_STATE_OK : SAVED_STATE_INVALID;
}
