#include "registers.h"

#include <string.h>

#include "control.h"
#include "flags.h"
#include "segment.h"

static uint64_t gpr_get(const struct cpu *c, uint32_t which) { return c->s.gpr[which]; }
static void gpr_set(struct cpu *c, uint32_t which, uint64_t value) { c->s.gpr[which] = value; }

static uint64_t rip_get(const struct cpu *c, uint32_t which) { (void)which; return c->s.rip; }
static void rip_set(struct cpu *c, uint32_t which, uint64_t value)
{
	(void)which;
	c->s.rip = value & c->linear_mask;
	partial_forget(c);
}

static uint64_t rflags_get(const struct cpu *c, uint32_t which) { (void)which; return flags_get(c); }
static void rflags_set(struct cpu *c, uint32_t which, uint64_t value) { (void)which; flags_set(c, (uint32_t)value); }

static uint64_t selector_get(const struct cpu *c, uint32_t which) { return c->s.segment[which].selector; }
/* A flat segment of this selector, as at reset, of the size that code has now: set-up code need not build descriptor
 * tables first. */
static void selector_set(struct cpu *c, uint32_t which, uint64_t value)
{
	c->s.segment[which] = segment_fixed((uint16_t)value, which == CS, value & 3, c->bits);
}

static uint64_t base_get(const struct cpu *c, uint32_t which) { return c->s.segment[which].base; }
static void base_set(struct cpu *c, uint32_t which, uint64_t value) { c->s.segment[which].base = value; }

enum other { CR0, CR2, CR3, CR4, CR8, GDT_LIMIT, IDT_LIMIT, LDTR, TR, CPL, RETIRED, HALTED, NMI_PENDING, BITS };

static uint64_t other_get(const struct cpu *c, uint32_t which)
{
	switch ((enum other)which) {
	case CR0: return c->s.cr0;
	case CR2: return c->s.cr2;
	case CR3: return c->s.cr3;
	case CR4: return c->s.cr4;
	case CR8: return c->s.apic.tpr >> 4;
	case GDT_LIMIT: return c->s.gdt_limit;
	case IDT_LIMIT: return c->s.idt_limit;
	case LDTR: return c->s.ldtr.selector;
	case TR: return c->s.tr.selector;
	case CPL: return cpu_privilege(c);
	case RETIRED: return c->s.retired;
	case HALTED: return c->s.waiting == WAIT_HALT;
	case NMI_PENDING: return c->s.nmi_pending;
	case BITS: return c->bits;
	}
	return 0;
}

static void paging_changed(struct cpu *c)
{
	/* Translations made under the old paging state are gone, as after the instruction that sets it. */
	memset(c->s.tlb_small, 0, sizeof(c->s.tlb_small));
	memset(c->s.tlb_large, 0, sizeof(c->s.tlb_large));
	bool paging = c->s.cr0 & CR0_PG, long_mode = c->s.efer & EFER_LME;
	c->s.efer = (c->s.efer & ~(uint64_t)EFER_LMA) | (paging && long_mode ? EFER_LMA : 0);
	if (paging && c->s.cr4 & CR4_PAE && !long_mode && pdptes_load(c, c->s.cr3) != STATUS_OK)
		memset(c->s.pdpte, 0, sizeof(c->s.pdpte));
}

static void other_set(struct cpu *c, uint32_t which, uint64_t value)
{
	switch ((enum other)which) {
	case CR0: c->s.cr0 = (uint32_t)value | CR0_ET; break;
	case CR2: c->s.cr2 = value; break;
	case CR3: c->s.cr3 = value; break;
	case CR4: c->s.cr4 = value & CR4_KNOWN; break;
	case CR8: c->s.apic.tpr = (uint32_t)(value & 15) << 4; break;
	case GDT_LIMIT: c->s.gdt_limit = value & 0xffff; break;
	case IDT_LIMIT: c->s.idt_limit = value & 0xffff; break;
	case NMI_PENDING: c->s.nmi_pending = value != 0; break;
	default: break;
	}
	if (which <= CR4 && which != CR2)
		paging_changed(c);
}

/* Words that are kept as they are; `which` is the offset in struct cpu_state. */
static uint64_t word_get(const struct cpu *c, uint32_t which) { return *(const uint64_t *)((const uint8_t *)&c->s + which); }
static void word_set(struct cpu *c, uint32_t which, uint64_t value) { *(uint64_t *)((uint8_t *)&c->s + which) = value; }

static void efer_set(struct cpu *c, uint32_t which, uint64_t value)
{
	(void)which;
	c->s.efer = value & EFER_KNOWN;
	paging_changed(c);
}

static void debug_set(struct cpu *c, uint32_t which, uint64_t value)
{
	uint32_t number = (uint32_t)((which - offsetof(struct cpu_state, dr)) / sizeof(c->s.dr[0]));
	debug_register_set(c, number, value);
}

#define WORD(name, field) {name, word_get, word_set, offsetof(struct cpu_state, field)}
#define DEBUG(name, n) {name, word_get, debug_set, offsetof(struct cpu_state, dr[n])}
const struct register_row register_table[] = {
	{"rax", gpr_get, gpr_set, 0}, {"rcx", gpr_get, gpr_set, 1}, {"rdx", gpr_get, gpr_set, 2},
	{"rbx", gpr_get, gpr_set, 3}, {"rsp", gpr_get, gpr_set, 4}, {"rbp", gpr_get, gpr_set, 5},
	{"rsi", gpr_get, gpr_set, 6}, {"rdi", gpr_get, gpr_set, 7}, {"r8", gpr_get, gpr_set, 8},
	{"r9", gpr_get, gpr_set, 9}, {"r10", gpr_get, gpr_set, 10}, {"r11", gpr_get, gpr_set, 11},
	{"r12", gpr_get, gpr_set, 12}, {"r13", gpr_get, gpr_set, 13}, {"r14", gpr_get, gpr_set, 14},
	{"r15", gpr_get, gpr_set, 15}, {"rip", rip_get, rip_set, 0}, {"rflags", rflags_get, rflags_set, 0},
	{"es", selector_get, selector_set, ES}, {"cs", selector_get, selector_set, CS},
	{"ss", selector_get, selector_set, SS}, {"ds", selector_get, selector_set, DS},
	{"fs", selector_get, selector_set, FS}, {"gs", selector_get, selector_set, GS},
	{"es_base", base_get, base_set, ES}, {"cs_base", base_get, base_set, CS},
	{"ss_base", base_get, base_set, SS}, {"ds_base", base_get, base_set, DS},
	{"fs_base", base_get, base_set, FS}, {"gs_base", base_get, base_set, GS},
	{"cr0", other_get, other_set, CR0}, {"cr2", other_get, other_set, CR2},
	{"cr3", other_get, other_set, CR3}, {"cr4", other_get, other_set, CR4},
	{"cr8", other_get, other_set, CR8},
	WORD("gdt_base", gdt_base), {"gdt_limit", other_get, other_set, GDT_LIMIT},
	WORD("idt_base", idt_base), {"idt_limit", other_get, other_set, IDT_LIMIT},
	{"ldtr", other_get, NULL, LDTR}, {"tr", other_get, NULL, TR}, {"cpl", other_get, NULL, CPL},
	{"efer", word_get, efer_set, offsetof(struct cpu_state, efer)}, WORD("star", star), WORD("lstar", lstar),
	WORD("cstar", cstar), WORD("sfmask", sfmask), WORD("kernel_gs_base", kernel_gs_base),
	WORD("sysenter_cs", sysenter_cs), WORD("sysenter_esp", sysenter_esp), WORD("sysenter_eip", sysenter_eip),
	WORD("tr_base", tr.base), WORD("ldtr_base", ldtr.base),
	DEBUG("dr0", 0), DEBUG("dr1", 1), DEBUG("dr2", 2), DEBUG("dr3", 3), DEBUG("dr6", 6), DEBUG("dr7", 7),
	{"retired", other_get, NULL, RETIRED}, {"halted", other_get, NULL, HALTED},
	{"nmi_pending", other_get, other_set, NMI_PENDING}, {"bits", other_get, NULL, BITS},
};

const uint32_t register_count = sizeof(register_table) / sizeof(register_table[0]);

const struct register_row *register_find(const char *name)
{
	for (uint32_t i = 0; i < register_count; i++)
		if (!strcmp(register_table[i].name, name))
			return &register_table[i];
	return NULL;
}

uint64_t register_get(const struct cpu *c, const struct register_row *row)
{
	return row->get(c, row->which);
}

bool register_set(struct cpu *c, const struct register_row *row, uint64_t value)
{
	if (!row->set)
		return false;
	row->set(c, row->which, value);
	cpu_refresh(c);
	return true;
}

bool register_set_bits(struct cpu *c, uint32_t bits)
{
	if (bits != 16 && bits != 32 && bits != 64)
		return false;
	c->s.efer &= ~(uint64_t)(EFER_LME | EFER_LMA);
	if (bits == 64) {
		c->s.cr4 |= CR4_PAE;
		c->s.cr0 |= CR0_PG;
		c->s.efer |= EFER_LME;
	}
	paging_changed(c);
	uint16_t code = c->s.segment[CS].selector;
	c->s.segment[CS] = segment_fixed(code, true, code & 3, bits);
	for (uint32_t i = 0; i < SEGMENT_COUNT; i++)
		if (i != CS)
			c->s.segment[i] = segment_fixed(c->s.segment[i].selector, false, c->s.segment[i].selector & 3, 32);
	cpu_refresh(c);
	return true;
}
