#include "spin.h"

#include "access.h"
#include "memory.h"
#include "mmu.h"
#include "store_buffer.h"

enum { SPIN_STACK_SIZE = 256 };

uint64_t spin_digest(struct cpu *c)
{
	const struct memory *mem = &c->machine->memory;
	/* An instruction that has made some of its loads has got on. */
	uint64_t h = hash_bytes(c->s.rip + ((uint64_t)c->s.partial_count << 56), c->s.gpr, 16 * sizeof(c->s.gpr[0]));
	uint64_t stack = (c->view[SS].base + (c->s.gpr[RSP] & c->stack_mask)) & c->linear_mask, phys;
	uint64_t size = PAGE_SIZE - (stack & (PAGE_SIZE - 1));
	size = size < SPIN_STACK_SIZE ? size : SPIN_STACK_SIZE;
	if (mmu_peek_cached(c, stack, &phys) && memory_contains(mem, phys, size))
		h = hash_bytes(h, mem->ram + phys, size);
	return h;
}

/* All of the CPU's state but its buffer, and how many instructions it has executed. */
static uint64_t state_digest(uint64_t h, struct cpu *c)
{
	const struct cpu_state *s = &c->s;
	cpu_canonicalise(c);
	h = hash_bytes(h, s, offsetof(struct cpu_state, retired));
	h = hash_bytes(h + (s->retired == s->shadow_mark), s->segment,
		       offsetof(struct cpu_state, store) - offsetof(struct cpu_state, segment));
	return hash_bytes(h, s->tlb_small, sizeof(s->tlb_small) + sizeof(s->tlb_large));
}

uint64_t spin_whole_digest(struct cpu *c)
{
	struct machine *m = c->machine;
	uint64_t h = state_digest(memory_hash(&m->memory) ^ m->clock_read, c);
	for (uint32_t i = 0; i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		uint64_t store[] = {e->phys, e->size, e->value};
		h = hash_bytes(h, store, sizeof(store));
	}
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fast_forbid_writes(&m->cpus[i]);
	return h;
}
