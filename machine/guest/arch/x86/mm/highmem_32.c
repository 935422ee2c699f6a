/* Short-lived mappings of HighMem pages, a stack of them per CPU (arch/x86/mm/highmem_32.c, 2.6.39). */
#include <linux/highmem.h>
#include <asm/fixmap.h>

static DEFINE_PER_CPU(int, kmap_atomic_index);

static unsigned kmap_slot(int depth)
{
	return FIX_KMAP_BEGIN + KM_TYPE_NR * smp_processor_id() + depth;
}

void *kmap_atomic(struct page *page)
{
	pagefault_disable();
	if (!PageHighMem(page))
		return page_address(page);
	int depth = __get_cpu_var(kmap_atomic_index)++;
	BUG_ON(depth >= KM_TYPE_NR);
	unsigned long vaddr = __fix_to_virt(kmap_slot(depth));
	pte_t *ptep = &fixmap_page_table[pte_index(vaddr)];
	BUG_ON(!pte_none(*ptep));
	set_pte(ptep, pfn_pte(page_to_pfn(page), PAGE_KERNEL));
	return (void *)vaddr;
}

void kunmap_atomic(void *address)
{
	unsigned long vaddr = (unsigned long)address & PAGE_MASK;

	if (vaddr >= __fix_to_virt(FIX_KMAP_END)) {
		int depth = --__get_cpu_var(kmap_atomic_index);

		BUG_ON(vaddr != __fix_to_virt(kmap_slot(depth)));
		set_pte(&fixmap_page_table[pte_index(vaddr)], __pte(0));
		invlpg(vaddr);
	}
	pagefault_enable();
}
