#include "control.h"

#include "exec.h"
#include "mmu.h"
#include "operand.h"
#include "segment.h"
#include "tlb.h"
#include "visible.h"

/* Bits 1, 2, 5 to 8, and all above the physical address. */
#define PDPTE_RESERVED (UINT64_C(0x1e6) | ~(PHYSICAL_FRAME | UINT64_C(0xfff)))

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LME);
}

enum status pdptes_load(struct cpu *c, uint64_t cr3)
{
	uint64_t table = cr3 & 0xffffffe0, pdpte[4];
	for (uint32_t i = 0; i < 4; i++) {
		pdpte[i] = mmu_load_physical(c, table + i * 8);
		if (pdpte[i] & PTE_P && pdpte[i] & PDPTE_RESERVED)
			return fault_raise_error(c, VECTOR_GP, 0);
	}
	memcpy(c->s.pdpte, pdpte, sizeof(pdpte));
	return STATUS_OK;
}

static enum status cr0_write(struct cpu *c, uint64_t value)
{
	uint64_t changed = c->s.cr0 ^ value;
	bool paging = value & CR0_PG, long_code = c->s.segment[CS].flags & SEGMENT_64BIT;
	/* Paging needs protection; and real mode, which PE = 0 would enter, does not exist here. */
	if (value >> 32 || !(value & CR0_PE) || (value & CR0_NW && !(value & CR0_CD)))
		return fault_raise_error(c, VECTOR_GP, 0);
	if (changed & CR0_PG && paging && c->s.efer & EFER_LME && (!(c->s.cr4 & CR4_PAE) || long_code))
		return fault_raise_error(c, VECTOR_GP, 0);
	if (changed & CR0_PG && !paging && c->bits == 64)
		return fault_raise_error(c, VECTOR_GP, 0);
	if (changed & (CR0_PG | CR0_CD | CR0_NW) && pae_paging(value, c->s.cr4, c->s.efer))
		TRY(pdptes_load(c, c->s.cr3));
	tap_event(c, EVENT_control, 0, 0, value, 8, 0);
	c->s.cr0 = (value & (CR0_KNOWN | (uint64_t)CR0_PG)) | CR0_ET;
	c->s.efer &= ~(uint64_t)EFER_LMA;
	if (paging && c->s.efer & EFER_LME)
		c->s.efer |= EFER_LMA;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		tlb_invalidate_all(c, true);
	return STATUS_OK;
}

static enum status cr3_write(struct cpu *c, uint64_t value)
{
	if (cpu_long_mode(c) && value >> PHYSICAL_BITS)
		return fault_raise_error(c, VECTOR_GP, 0);
	if (pae_paging(c->s.cr0, c->s.cr4, c->s.efer))
		TRY(pdptes_load(c, value));
	tap_event(c, EVENT_control, 0, 0, value, 8, 3);
	c->s.cr3 = value;
	tlb_invalidate_all(c, !(c->s.cr4 & CR4_PGE));
	return STATUS_OK;
}

static enum status cr4_write(struct cpu *c, uint64_t value)
{
	uint64_t changed = c->s.cr4 ^ value;
	/* Bits this machine does not know are reserved and fault, as on a CPU without the feature. */
	if (value & ~(uint64_t)CR4_KNOWN || (changed & CR4_PAE && cpu_long_mode(c)))
		return fault_raise_error(c, VECTOR_GP, 0);
	if (changed & (CR4_PAE | CR4_PSE | CR4_PGE) && pae_paging(c->s.cr0, value, c->s.efer))
		TRY(pdptes_load(c, c->s.cr3));
	tap_event(c, EVENT_control, 0, 0, value, 8, 4);
	c->s.cr4 = value;
	if (changed)
		tlb_invalidate_all(c, true);
	return STATUS_OK;
}

enum status control_write(struct cpu *c, uint32_t number, uint64_t value)
{
	enum status status = STATUS_OK;
	switch (number) {
	case 0: status = cr0_write(c, value); break;
	case 2:
		tap_event(c, EVENT_control, 0, 0, value, 8, 2);
		c->s.cr2 = value;
		break;
	case 3: status = cr3_write(c, value); break;
	case 4: status = cr4_write(c, value); break;
	default: /* CR8 is bits 7..4 of the APIC's task priority */
		if (value >> 4)
			return fault_raise_error(c, VECTOR_GP, 0);
		tap_event(c, EVENT_control, 0, 0, value, 8, 8);
		c->s.apic.tpr = (uint32_t)value << 4;
		break;
	}
	cpu_update_mode(c);
	return status;
}

void debug_register_set(struct cpu *c, uint32_t number, uint64_t value)
{
	if (number == 6)
		value = (value & 0xe00f) | DR6_FIXED;
	else if (number == 7)
		value = (value & 0xffff23ff) | DR7_FIXED;
	c->s.dr[number] = value;
	cpu_update_mode(c);
}

enum msr {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_MTRR_CAP = 0xfe,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_PAT = 0x277,
};

enum msr_kind { MSR_PLAIN, MSR_ADDRESS, MSR_WORD, MSR_PAT_KIND, MSR_EFER_KIND };

/* Registers that are kept; those with another meaning follow in msr_read and msr_write. */
struct msr_row {
	uint32_t number;
	uint32_t kind;
	uint64_t offset; /* in struct cpu_state */
};

#define ROW(number, kind, field) {number, kind, offsetof(struct cpu_state, field)}
static const struct msr_row msr_table[] = {
	ROW(MSR_SYSENTER_CS, MSR_PLAIN, sysenter_cs),
	ROW(MSR_SYSENTER_ESP, MSR_ADDRESS, sysenter_esp),
	ROW(MSR_SYSENTER_EIP, MSR_ADDRESS, sysenter_eip),
	ROW(MSR_MISC_ENABLE, MSR_PLAIN, misc_enable),
	ROW(MSR_PAT, MSR_PAT_KIND, pat),
	ROW(0xc0000080, MSR_EFER_KIND, efer),
	ROW(0xc0000081, MSR_PLAIN, star),
	ROW(0xc0000082, MSR_ADDRESS, lstar),
	ROW(0xc0000083, MSR_ADDRESS, cstar),
	ROW(0xc0000084, MSR_WORD, sfmask),
	ROW(0xc0000100, MSR_ADDRESS, segment[FS].base),
	ROW(0xc0000101, MSR_ADDRESS, segment[GS].base),
	ROW(0xc0000102, MSR_ADDRESS, kernel_gs_base),
	ROW(0xc0000103, MSR_WORD, tsc_aux),
};
#undef ROW

static uint64_t *msr_find(struct cpu *c, uint32_t number, uint32_t *kind)
{
	for (size_t i = 0; i < sizeof(msr_table) / sizeof(msr_table[0]); i++)
		if (msr_table[i].number == number) {
			*kind = msr_table[i].kind;
			return (uint64_t *)((uint8_t *)&c->s + msr_table[i].offset);
		}
	return NULL;
}

enum status msr_read(struct cpu *c, uint32_t number, uint64_t *ret)
{
	uint32_t kind;
	const uint64_t *kept = msr_find(c, number, &kind);
	if (kept) {
		*ret = *kept;
		return STATUS_OK;
	}
	switch (number) {
	case MSR_TSC:
		visible_clock(c->machine);
		*ret = machine_time(c->machine);
		return STATUS_OK;
	case MSR_APIC_BASE: *ret = APIC_BASE | 1 << 11 | (c->number ? 0 : 1 << 8); return STATUS_OK;
	case MSR_MTRR_CAP: *ret = 0; return STATUS_OK;
	default: return fault_raise_error(c, VECTOR_GP, 0);
	}
}

static bool pat_valid(uint64_t value)
{
	for (int i = 0; i < 8; i++) {
		uint64_t type = value >> 8 * i & 0xff;
		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

enum status msr_write(struct cpu *c, uint32_t number, uint64_t value)
{
	uint32_t kind = MSR_PLAIN;
	uint64_t *kept = msr_find(c, number, &kind);
	bool valid = kept != NULL;
	switch ((enum msr_kind)kind) {
	case MSR_PLAIN: break;
	case MSR_ADDRESS: valid = valid && address_canonical(value); break;
	case MSR_WORD: valid = valid && !(value >> 32); break;
	case MSR_PAT_KIND: valid = valid && pat_valid(value); break;
	case MSR_EFER_KIND:
		/* LMA is not written, and LME may not change while paging is on. */
		valid = valid && !(value & ~(uint64_t)EFER_KNOWN) && !((value ^ c->s.efer) & EFER_LME && c->s.cr0 & CR0_PG);
		value = (value & ~(uint64_t)EFER_LMA) | (c->s.efer & EFER_LMA);
		break;
	}
	/* The APIC stays where it is and on; the time stamp is the step, which nobody sets. */
	if (!kept && (number == MSR_APIC_BASE || number == MSR_TSC))
		return STATUS_OK;
	if (!valid)
		return fault_raise_error(c, VECTOR_GP, 0);
	if (kind == MSR_EFER_KIND && (value ^ c->s.efer) & EFER_NXE)
		tlb_invalidate_all(c, true);
	tap_event(c, EVENT_msr, number, 0, value, 8, 0);
	*kept = value;
	cpu_update_mode(c);
	return STATUS_OK;
}

/* A fixed processor: family 6, with the features that exist here. */
ALWAYS_INLINE enum status cpuid(struct cpu *c, const struct op *op, uint32_t size, bool memory)
{
	(void)op;
	(void)size;
	(void)memory;
	enum {
		DE = 1 << 2, PSE = 1 << 3, TSC = 1 << 4, MSR = 1 << 5, PAE = 1 << 6, CX8 = 1 << 8, APIC = 1 << 9, SEP = 1 << 11,
		PGE = 1 << 13, CMOV = 1 << 15, PAT = 1 << 16,
		CX16 = 1 << 13, MOVBE = 1 << 22, POPCNT = 1 << 23,
		SYSCALL = 1 << 11, NX = 1 << 20, GB_PAGES = 1 << 26, RDTSCP = 1 << 27, LM = 1 << 29,
		LAHF_64 = 1 << 0, LZCNT = 1 << 5,
	};
	uint32_t a = 0, b = 0, cx = 0, d = 0;
	switch ((uint32_t)c->s.gpr[RAX]) {
	case 0: /* "racetape x86" */
		a = 1;
		b = 0x65636172;
		d = 0x65706174;
		cx = 0x36387820;
		break;
	case 1:
		a = 0x00000600;
		b = c->number << 24 | (CACHE_LINE_SIZE / 8) << 8;
		cx = CX16 | MOVBE | POPCNT;
		/* A PC has its interrupt controllers, and no table of APICs yet. */
		d = DE | PSE | TSC | MSR | PAE | CX8 | (c->machine->pc ? 0 : APIC) | SEP | PGE | CMOV | PAT;
		break;
	case 0x80000000: a = 0x80000008; break;
	case 0x80000001:
		cx = LAHF_64 | LZCNT;
		d = NX | GB_PAGES | RDTSCP | LM | (c->bits == 64 ? SYSCALL : 0);
		break;
	case 0x80000008: a = 48 << 8 | PHYSICAL_BITS; break;
	default: break;
	}
	reg_set(c, RAX, 4, a);
	reg_set(c, RBX, 4, b);
	reg_set(c, RCX, 4, cx);
	reg_set(c, RDX, 4, d);
	return STATUS_OK;
}
HANDLERS_SYNCED(cpuid)
