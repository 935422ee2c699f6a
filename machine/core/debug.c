#include "debug.h"

enum { BREAK_EXECUTE, BREAK_WRITE, BREAK_PORT, BREAK_ACCESS };

static uint32_t breakpoint_kind(const struct cpu *c, uint32_t n) { return c->s.dr[7] >> (16 + 4 * n) & 3; }
static bool breakpoint_enabled(const struct cpu *c, uint32_t n) { return c->s.dr[7] >> 2 * n & 3; }

/* Length field: 0, 1, 2, 3 are 1, 2, 8 and 4 bytes. */
static uint64_t breakpoint_size(const struct cpu *c, uint32_t n)
{
	static const uint8_t size[4] = {1, 2, 8, 4};
	return size[c->s.dr[7] >> (18 + 4 * n) & 3];
}

static bool alignment_checked(const struct cpu *c)
{
	return (c->s.cr0 & CR0_AM) && (c->s.rflags & FLAG_AC) && cpu_privilege(c) == 3;
}

bool debug_in_use(const struct cpu *c)
{
	return (c->s.rflags & (FLAG_TF | FLAG_RF)) || (c->s.dr[7] & DR7_ENABLED) || alignment_checked(c);
}

bool debug_misaligned(struct cpu *c, uint64_t addr, uint32_t size)
{
	if (!alignment_checked(c) || !(addr & (size - 1)))
		return false;
	c->fault = (struct fault){.vector = VECTOR_AC, .has_error = true};
	return true;
}

static void watch(struct cpu *c, uint64_t addr, uint64_t size, uint32_t kinds)
{
	for (uint32_t n = 0; n < 4; n++) {
		uint64_t length = breakpoint_size(c, n), start = c->s.dr[n] & ~(length - 1);
		if (breakpoint_enabled(c, n) && kinds >> breakpoint_kind(c, n) & 1 && start < addr + size && addr < start + length)
			c->watch_hits |= UINT64_C(1) << n;
	}
}

void debug_watch(struct cpu *c, uint64_t addr, uint32_t size, bool write)
{
	watch(c, addr, size, 1u << BREAK_ACCESS | (write ? 1u << BREAK_WRITE : 0));
}

void debug_watch_port(struct cpu *c, uint32_t port, uint32_t size)
{
	if (c->s.cr4 & CR4_DE)
		watch(c, port, size, 1u << BREAK_PORT);
}

bool debug_breakpoint(struct cpu *c)
{
	uint64_t at = (c->view[CS].base + c->s.rip) & c->linear_mask, hits = 0;
	if (!(c->s.dr[7] & DR7_ENABLED) || c->s.rflags & FLAG_RF || c->s.traps_held & TRAPS_BEHIND_SS)
		return false;
	for (uint32_t n = 0; n < 4; n++)
		if (breakpoint_enabled(c, n) && breakpoint_kind(c, n) == BREAK_EXECUTE && c->s.dr[n] == at)
			hits |= UINT64_C(1) << n;
	if (!hits)
		return false;
	c->pc = at;
	c->watch_hits |= hits;
	return debug_trap(c, false);
}

bool debug_trap(struct cpu *c, bool single_step)
{
	uint64_t hits = c->watch_hits | (single_step ? DR6_BS : 0);
	c->watch_hits = 0;
	if (!hits)
		return false;
	c->s.dr[6] = (c->s.dr[6] & ~UINT64_C(15)) | hits;
	c->fault = (struct fault){.vector = VECTOR_DB};
	return true;
}
