/* System instructions, fences and tracepoints. SDM vol. 2 and 3; docs/platform.md for tracepoints. */
#include "control.h"
#include "device.h"
#include "exec.h"
#include "operand.h"
#include "ledger.h"
#include "pool.h"
#include "segment.h"
#include "tlb.h"
#include "visible.h"

enum status exec_undefined(struct cpu *c, const struct op *op)
{
	c->fault = (struct fault){.vector = VECTOR_UD, .addr = (uint64_t)op->immediate};
	return chain_stop(c, op, STATUS_FAULT);
}

enum status exec_too_long(struct cpu *c, const struct op *op)
{
	return chain_stop(c, op, fault_raise_error(c, VECTOR_GP, 0));
}

/* A plain long NOP, unless its displacement says that it is a tracepoint. */
ALWAYS_INLINE enum status nop_e(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	if (!memory || (uint32_t)op->displacement >> 16 != TRACE_MAGIC || !(op->displacement & 0xffff))
		return STATUS_OK;
	uint32_t identifier = op->displacement & 0xffff;
	op_event(c, op, EVENT_trace, c->s.gpr[op->index], identifier, c->s.gpr[op->base], 0, 0);
	if (unlikely(identifier == c->machine->ledger.trace))
		ledger_trace(c->machine, c, op);
	if (pool_concerns(c->machine, identifier))
		pool_trace(c, op);
	return identifier == c->machine->stop_at_trace ? STATUS_TRACE : STATUS_OK;
}
HANDLERS_PLAIN(nop_e)

ALWAYS_INLINE enum status fence(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	(void)memory;
	/* MFENCE waits for the buffer (its row says `drain`); LFENCE and SFENCE order nothing in this model. */
	uint32_t which = op->reg == 6 ? 0 : op->reg == 5 ? 1 : 2;
	op_event(c, op, EVENT_fence, 0, 0, 0, 0, which);
	return STATUS_OK;
}
HANDLERS_PLAIN(fence)

ALWAYS_INLINE enum status nothing(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)c;
	(void)op;
	(void)size;
	(void)memory;
	return STATUS_OK;
}
HANDLERS_PLAIN(nothing)

ALWAYS_INLINE enum status hlt(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	tap_event(c, EVENT_halt, 0, 0, 0, 0, 0);
	c->s.waiting = WAIT_HALT;
	return STATUS_STOP;
}
HANDLERS_SYNCED(hlt)

/* WBINVD, INVD: caches are not modelled. */
ALWAYS_INLINE enum status wbinvd(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return require_supervisor(c);
}
HANDLERS_SYNCED(wbinvd)

static enum status invlpg(struct cpu *c, const struct op *op)
{
	TRY(require_supervisor(c));
	/* No segment limit applies (SDM: INVLPG); the base does. */
	uint64_t addr = (c->view[op->segment].base + op_offset(c, op)) & c->linear_mask;
	if (c->bits != 64 || address_canonical(addr)) /* else a NOP (SDM) */
		tlb_invalidate_page(c, addr);
	return STATUS_OK;
}

ALWAYS_INLINE enum status mov_r_cr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	TRY(require_supervisor(c));
	uint64_t value;
	switch (op->reg) {
	case 0: value = c->s.cr0; break;
	case 2: value = c->s.cr2; break;
	case 3: value = c->s.cr3; break;
	case 4: value = c->s.cr4; break;
	default: value = c->s.apic.tpr >> 4; break; /* CR8; the table has no rows for others */
	}
	reg_set(c, op->rm, size, value);
	return STATUS_OK;
}
HANDLERS_SYNCED(mov_r_cr)

ALWAYS_INLINE enum status mov_cr_r(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	TRY(require_supervisor(c));
	return control_write(c, op->reg, reg_get(c, op->rm, size));
}
HANDLERS_SYNCED(mov_cr_r)

ALWAYS_INLINE enum status clts(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	c->s.cr0 &= ~(uint64_t)CR0_TS;
	return STATUS_OK;
}
HANDLERS_SYNCED(clts)

ALWAYS_INLINE enum status smsw(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	return memory ? e_set(c, op, 2, true, c->s.cr0) : e_set(c, op, size, false, c->s.cr0);
}
HANDLERS_SYNCED(smsw)

/* LMSW: the low four bits of CR0; it can set PE but not clear it. */
ALWAYS_INLINE enum status lmsw(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)size;
	uint64_t value;
	TRY(require_supervisor(c));
	TRY(e_get(c, op, 2, memory, &value));
	return control_write(c, 0, (c->s.cr0 & ~UINT64_C(14)) | (value & 15));
}
HANDLERS_SYNCED(lmsw)

/* MOV to and from debug registers: 4 and 5 are 6 and 7 unless CR4.DE makes them #UD; DR7.GD traps. */
static enum status debug_register(struct cpu *c, uint32_t *number)
{
	TRY(require_supervisor(c));
	if (*number == 4 || *number == 5) {
		if (c->s.cr4 & CR4_DE)
			return fault_raise(c, VECTOR_UD);
		*number += 2;
	}
	return c->s.dr[7] & DR7_GD ? fault_raise(c, VECTOR_DB) : STATUS_OK;
}

ALWAYS_INLINE enum status mov_r_dr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint32_t number = op->reg;
	TRY(debug_register(c, &number));
	reg_set(c, op->rm, size, c->s.dr[number]);
	return STATUS_OK;
}
HANDLERS_SYNCED(mov_r_dr)

ALWAYS_INLINE enum status mov_dr_r(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)memory;
	uint32_t number = op->reg;
	TRY(debug_register(c, &number));
	uint64_t value = reg_get(c, op->rm, size);
	if (number >= 6 && value >> 32)
		return fault_raise_error(c, VECTOR_GP, 0);
	debug_register_set(c, number, value);
	return STATUS_OK;
}
HANDLERS_SYNCED(mov_dr_r)

/* RDTSC, RDTSCP: the time stamp is the step number, the only clock there is. */
ALWAYS_INLINE enum status rdtsc(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	if (c->s.cr4 & CR4_TSD && cpu_privilege(c))
		return fault_raise_error(c, VECTOR_GP, 0);
	visible_clock(c->machine);
	reg_set(c, RAX, 4, machine_time(c->machine));
	reg_set(c, RDX, 4, machine_time(c->machine) >> 32);
	if (op->opcode == 0x01) /* RDTSCP */
		reg_set(c, RCX, 4, c->s.tsc_aux);
	return STATUS_OK;
}
HANDLERS_SYNCED(rdtsc)

ALWAYS_INLINE enum status rdmsr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	uint64_t value;
	TRY(require_supervisor(c));
	TRY(msr_read(c, (uint32_t)c->s.gpr[RCX], &value));
	reg_set(c, RAX, 4, value);
	reg_set(c, RDX, 4, value >> 32);
	return STATUS_OK;
}
HANDLERS_SYNCED(rdmsr)

ALWAYS_INLINE enum status wrmsr(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	TRY(require_supervisor(c));
	return msr_write(c, (uint32_t)c->s.gpr[RCX], reg_get(c, RDX, 4) << 32 | reg_get(c, RAX, 4));
}
HANDLERS_SYNCED(wrmsr)

static enum status swapgs(struct cpu *c)
{
	if (c->bits != 64)
		return fault_raise(c, VECTOR_UD);
	TRY(require_supervisor(c));
	uint64_t base = c->s.segment[GS].base;
	c->s.segment[GS].base = c->s.kernel_gs_base;
	c->s.kernel_gs_base = base;
	cpu_update_mode(c);
	return STATUS_OK;
}

/* 0F 01 /7: INVLPG; without a memory operand SWAPGS (F8) and RDTSCP (F9). */
ALWAYS_INLINE enum status invlpg_or_swapgs(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	if (memory)
		return invlpg(c, op);
	switch (op->rm & 7) {
	case 0: return swapgs(c);
	case 1: return rdtsc(c, op, size, memory);
	default: return fault_raise(c, VECTOR_UD);
	}
}
HANDLERS_ANY(invlpg_or_swapgs)

static void enter_ring(struct cpu *c, uint16_t code, uint16_t stack, uint32_t privilege, uint32_t bits)
{
	struct segment_register cs = segment_fixed(code, true, privilege, bits);
	c->s.segment[SS] = segment_fixed(stack, false, privilege, 32);
	segment_set_code(c, &cs);
}

/* SYSCALL, in 64-bit code and in its compatibility mode. It takes no stack and looks at no descriptor. */
ALWAYS_INLINE enum status syscall(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	/* As on Intel: only from 64-bit code. */
	if (!(c->s.efer & EFER_SCE) || c->bits != 64)
		return fault_raise(c, VECTOR_UD);
	uint16_t code = (uint16_t)(c->s.star >> 32) & 0xfffc;
	c->s.gpr[RCX] = c->s.rip;
	c->s.gpr[R11] = flags_get(c) & ~(uint64_t)FLAG_RF;
	flags_set(c, flags_get(c) & ~c->s.sfmask & ~(uint64_t)FLAG_RF);
	c->trap_armed = c->trap_armed && c->s.rflags & FLAG_TF; /* stepped by what is left of the flags */
	c->s.rip = c->s.lstar;
	enter_ring(c, code, (uint16_t)(code + 8), 0, 64);
	return STATUS_OK;
}
HANDLERS_SYNCED(syscall)

ALWAYS_INLINE enum status sysret(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	if (!(c->s.efer & EFER_SCE) || c->bits != 64)
		return fault_raise(c, VECTOR_UD);
	TRY(require_supervisor(c));
	if (size == 8 && !address_canonical(c->s.gpr[RCX]))
		return fault_raise_error(c, VECTOR_GP, 0);
	uint16_t base = (uint16_t)(c->s.star >> 48);
	uint64_t kept = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_OF | FLAG_IOPL |
			FLAG_NT | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID;
	flags_set(c, c->s.gpr[R11] & kept);
	c->s.rip = size == 8 ? c->s.gpr[RCX] : (uint32_t)c->s.gpr[RCX];
	enter_ring(c, (uint16_t)((base + (size == 8 ? 16 : 0)) | 3), (uint16_t)((base + 8) | 3), 3, size == 8 ? 64 : 32);
	return STATUS_OK;
}
HANDLERS_SYNCED(sysret)

ALWAYS_INLINE enum status sysenter(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	if (!(c->s.sysenter_cs & 0xfffc))
		return fault_raise_error(c, VECTOR_GP, 0);
	bool wide = cpu_long_mode(c);
	uint16_t code = (uint16_t)c->s.sysenter_cs & 0xfffc;
	c->s.rflags &= ~(uint64_t)(FLAG_IF | FLAG_VM | FLAG_RF);
	c->s.rip = wide ? c->s.sysenter_eip : (uint32_t)c->s.sysenter_eip;
	c->s.gpr[RSP] = wide ? c->s.sysenter_esp : (uint32_t)c->s.sysenter_esp;
	enter_ring(c, code, (uint16_t)(code + 8), 0, wide ? 64 : 32);
	return STATUS_OK;
}
HANDLERS_SYNCED(sysenter)

ALWAYS_INLINE enum status sysexit(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)memory;
	if (!(c->s.sysenter_cs & 0xfffc) || cpu_privilege(c))
		return fault_raise_error(c, VECTOR_GP, 0);
	bool wide = size == 8;
	if (wide && !(address_canonical(c->s.gpr[RDX]) && address_canonical(c->s.gpr[RCX])))
		return fault_raise_error(c, VECTOR_GP, 0);
	uint16_t base = (uint16_t)c->s.sysenter_cs;
	c->s.rip = wide ? c->s.gpr[RDX] : (uint32_t)c->s.gpr[RDX];
	c->s.gpr[RSP] = wide ? c->s.gpr[RCX] : (uint32_t)c->s.gpr[RCX];
	uint16_t code = (uint16_t)(base + (wide ? 32 : 16));
	enter_ring(c, code | 3, (uint16_t)(code + 8) | 3, 3, wide ? 64 : 32);
	return STATUS_OK;
}
HANDLERS_SYNCED(sysexit)

/* x87 instructions on a processor that has no x87: #NM if CR0 says that they are emulated or that another task's state
 * is loaded (SDM vol. 3, 2.5), otherwise #UD. MMX and SSE are in no row of the table: #UD. */
ALWAYS_INLINE enum status x87(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	return fault_raise(c, c->s.cr0 & (CR0_EM | CR0_TS) ? VECTOR_NM : VECTOR_UD);
}
HANDLERS_SYNCED(x87)

/* WAIT */
ALWAYS_INLINE enum status fwait(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	uint64_t both = CR0_MP | CR0_TS;
	return (c->s.cr0 & both) == both ? fault_raise(c, VECTOR_NM) : STATUS_OK;
}
HANDLERS_PLAIN(fwait)
