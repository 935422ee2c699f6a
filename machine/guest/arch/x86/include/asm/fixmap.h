/* Compile-time virtual addresses at the top of the address space (arch/x86/include/asm/fixmap.h, 2.6.39). */
#ifndef ASM_FIXMAP_H
#define ASM_FIXMAP_H

#include <asm/pgtable.h>

/* How deep kmap_atomic nests on one CPU. */
#define KM_TYPE_NR 8

enum fixed_addresses {
	FIX_APIC_BASE,
	FIX_KMAP_BEGIN,
	FIX_KMAP_END = FIX_KMAP_BEGIN + KM_TYPE_NR * NR_CPUS - 1,
};

#define FIXADDR_TOP 0xfffff000UL
#define __fix_to_virt(index) (FIXADDR_TOP - ((unsigned long)(index) << PAGE_SHIFT))

/* The one page table behind the fixmap: the top 4 MB. */
extern pte_t fixmap_page_table[PTRS_PER_PTE];

static inline void set_fixmap(unsigned index, u32 phys, u32 prot)
{
	set_pte(&fixmap_page_table[pte_index(__fix_to_virt(index))], __pte(phys | prot));
	invlpg(__fix_to_virt(index));
}

#endif
