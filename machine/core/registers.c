#include "registers.h"

#include <string.h>

#include "flags.h"
#include "segment.h"

static uint64_t gpr_get(const struct cpu *c, uint32_t which) { return c->s.gpr[which]; }
static void gpr_set(struct cpu *c, uint32_t which, uint64_t value) { c->s.gpr[which] = (uint32_t)value; }

static uint64_t rip_get(const struct cpu *c, uint32_t which) { (void)which; return c->s.rip; }
static void rip_set(struct cpu *c, uint32_t which, uint64_t value) { (void)which; c->s.rip = (uint32_t)value; }

static uint64_t rflags_get(const struct cpu *c, uint32_t which) { (void)which; return flags_get(c); }
static void rflags_set(struct cpu *c, uint32_t which, uint64_t value) { (void)which; flags_set(c, (uint32_t)value); }

static uint64_t selector_get(const struct cpu *c, uint32_t which) { return c->s.segment[which].selector; }
/* A flat segment of this selector, as at reset: set-up code need not build descriptor tables first. */
static void selector_set(struct cpu *c, uint32_t which, uint64_t value)
{
	c->s.segment[which] = segment_flat((uint16_t)value, which == CS);
}

static uint64_t base_get(const struct cpu *c, uint32_t which) { return c->s.segment[which].base; }
static void base_set(struct cpu *c, uint32_t which, uint64_t value) { c->s.segment[which].base = (uint32_t)value; }

enum other { CR0, CR2, CR3, CR4, GDT_BASE, GDT_LIMIT, IDT_BASE, IDT_LIMIT, LDTR, TR, CPL, RETIRED, HALTED };

static uint64_t other_get(const struct cpu *c, uint32_t which)
{
	switch ((enum other)which) {
	case CR0: return c->s.cr0;
	case CR2: return c->s.cr2;
	case CR3: return c->s.cr3;
	case CR4: return c->s.cr4;
	case GDT_BASE: return c->s.gdt_base;
	case GDT_LIMIT: return c->s.gdt_limit;
	case IDT_BASE: return c->s.idt_base;
	case IDT_LIMIT: return c->s.idt_limit;
	case LDTR: return c->s.ldtr.selector;
	case TR: return c->s.tr.selector;
	case CPL: return cpu_privilege(c);
	case RETIRED: return c->s.retired;
	case HALTED: return c->s.waiting == WAIT_HALT;
	}
	return 0;
}

static void other_set(struct cpu *c, uint32_t which, uint64_t value)
{
	uint32_t word = (uint32_t)value;
	switch ((enum other)which) {
	case CR0: c->s.cr0 = word | CR0_ET; break;
	case CR2: c->s.cr2 = word; break;
	case CR3: c->s.cr3 = word; break;
	case CR4: c->s.cr4 = word & (CR4_PSE | CR4_PGE); break;
	case GDT_BASE: c->s.gdt_base = word; break;
	case GDT_LIMIT: c->s.gdt_limit = word & 0xffff; break;
	case IDT_BASE: c->s.idt_base = word; break;
	case IDT_LIMIT: c->s.idt_limit = word & 0xffff; break;
	default: break;
	}
	/* Translations made under the old paging state are gone, as after the instruction that sets it. */
	if (which <= CR4 && which != CR2) {
		memset(c->s.tlb_small, 0, sizeof(c->s.tlb_small));
		memset(c->s.tlb_large, 0, sizeof(c->s.tlb_large));
	}
}

const struct register_row register_table[] = {
	{"rax", gpr_get, gpr_set, 0}, {"rcx", gpr_get, gpr_set, 1}, {"rdx", gpr_get, gpr_set, 2},
	{"rbx", gpr_get, gpr_set, 3}, {"rsp", gpr_get, gpr_set, 4}, {"rbp", gpr_get, gpr_set, 5},
	{"rsi", gpr_get, gpr_set, 6}, {"rdi", gpr_get, gpr_set, 7}, {"r8", gpr_get, NULL, 8},
	{"r9", gpr_get, NULL, 9}, {"r10", gpr_get, NULL, 10}, {"r11", gpr_get, NULL, 11},
	{"r12", gpr_get, NULL, 12}, {"r13", gpr_get, NULL, 13}, {"r14", gpr_get, NULL, 14},
	{"r15", gpr_get, NULL, 15}, {"rip", rip_get, rip_set, 0}, {"rflags", rflags_get, rflags_set, 0},
	{"es", selector_get, selector_set, ES}, {"cs", selector_get, selector_set, CS},
	{"ss", selector_get, selector_set, SS}, {"ds", selector_get, selector_set, DS},
	{"fs", selector_get, selector_set, FS}, {"gs", selector_get, selector_set, GS},
	{"es_base", base_get, base_set, ES}, {"cs_base", base_get, base_set, CS},
	{"ss_base", base_get, base_set, SS}, {"ds_base", base_get, base_set, DS},
	{"fs_base", base_get, base_set, FS}, {"gs_base", base_get, base_set, GS},
	{"cr0", other_get, other_set, CR0}, {"cr2", other_get, other_set, CR2},
	{"cr3", other_get, other_set, CR3}, {"cr4", other_get, other_set, CR4},
	{"gdt_base", other_get, other_set, GDT_BASE}, {"gdt_limit", other_get, other_set, GDT_LIMIT},
	{"idt_base", other_get, other_set, IDT_BASE}, {"idt_limit", other_get, other_set, IDT_LIMIT},
	{"ldtr", other_get, NULL, LDTR}, {"tr", other_get, NULL, TR}, {"cpl", other_get, NULL, CPL},
	{"retired", other_get, NULL, RETIRED}, {"halted", other_get, NULL, HALTED},
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
