/* Compile-time virtual addresses at the top of the address space (arch/x86/include/asm/fixmap.h, 2.6.39). */
#ifndef ASM_FIXMAP_H
#define ASM_FIXMAP_H

#include <asm/pgtable.h>

/* How deep kmap_atomic nests on one CPU. */
#define KM_TYPE_NR 8

enum fixed_addresses {
	FIX_APIC_BASE,
#ifdef CONFIG_HIGHMEM
	FIX_KMAP_BEGIN,
	FIX_KMAP_END = FIX_KMAP_BEGIN + KM_TYPE_NR * NR_CPUS - 1,
#endif
};

#ifdef CONFIG_X86_64
/* Below the last 2 MB, where Linux has its vsyscalls. */
#define FIXADDR_TOP 0xffffffffffdff000UL
#else
#define FIXADDR_TOP 0xfffff000UL
#endif
#define __fix_to_virt(index) (FIXADDR_TOP - ((unsigned long)(index) << PAGE_SHIFT))

/* The one page table behind the fixmap: the 4 or 2 MB around FIXADDR_TOP. */
extern pte_t fixmap_page_table[PTRS_PER_PTE];

static inline void set_fixmap(unsigned index, u32 phys, pteval_t prot)
{
	set_pte(&fixmap_page_table[pte_index(__fix_to_virt(index))], pfn_pte(phys >> PAGE_SHIFT, prot));
	invlpg(__fix_to_virt(index));
}

#endif
