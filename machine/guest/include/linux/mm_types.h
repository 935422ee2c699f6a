#ifndef LINUX_MM_TYPES_H
#define LINUX_MM_TYPES_H

#include <linux/rwsem.h>
#include <asm/pgtable.h>

struct address_space;
struct anon_vma;

/* As large as Linux's: what mem_map takes is part of how memory is laid out. */
struct page {
	unsigned long flags;
	atomic_t _count;
	atomic_t _mapcount;		/* mappings - 1; -128: in the buddy lists */
	union {
		unsigned long private;	/* buddy order, pcp migratetype */
		spinlock_t ptl;		/* of a page table page */
		struct page *first_page;	/* of a compound page's tail */
	};
	struct address_space *mapping;	/* bit 0: an anon_vma instead */
	unsigned long index;
	struct list_head lru;
};
_Static_assert(sizeof(struct page) == (sizeof(long) == 4 ? 32 : 56), "struct page");

struct vm_area_struct {
	struct mm_struct *vm_mm;
	unsigned long vm_start, vm_end;
	struct vm_area_struct *vm_next;
	pteval_t vm_page_prot;
	unsigned long vm_flags;
	struct list_head anon_vma_chain;
	struct anon_vma *anon_vma;
	unsigned long vm_pgoff;
};

#define VM_READ 0x1UL
#define VM_WRITE 0x2UL
#define VM_MAYWRITE 0x20UL
#define VM_SHARED 0x8UL
#define VM_NOHUGEPAGE 0x40000000UL

enum { MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, NR_MM_COUNTERS };

struct mm_struct {
	struct vm_area_struct *mmap;	/* by address */
	pgd_t *pgd;
	atomic_t mm_users;		/* tasks */
	atomic_t mm_count;		/* users as one, plus lazy borrowers */
	unsigned long nr_ptes;
	spinlock_t page_table_lock;
	struct rw_semaphore mmap_sem;
	atomic_long_t rss_stat[NR_MM_COUNTERS];
	unsigned long cpu_vm_mask;
	struct page *pmd_huge_pte;	/* deposited page tables, one per huge pmd */
};

#endif
