#ifndef LINUX_MM_H
#define LINUX_MM_H

#include <linux/gfp.h>
#include <linux/mm_types.h>
#include <linux/page-flags.h>
#include <linux/sched.h>
#include <linux/bit_spinlock.h>

#define VM_FAULT_OOM 0x0001
#define VM_FAULT_SIGBUS 0x0002

#define FAULT_FLAG_WRITE 0x01

#define PAGE_MAPPING_ANON 1UL

typedef void compound_page_dtor(struct page *page);

static inline int page_count(struct page *page)
{
	struct page *head = PageTail(page) ? page->first_page : page;

	return atomic_read(&head->_count);
}

static inline void init_page_count(struct page *page)
{
	atomic_set(&page->_count, 1);
}

static inline void reset_page_mapcount(struct page *page)
{
	atomic_set(&page->_mapcount, -1);
}

static inline int page_mapcount(struct page *page)
{
	return atomic_read(&page->_mapcount) + 1;
}

static inline bool page_mapped(struct page *page)
{
	return atomic_read(&page->_mapcount) >= 0;
}

static inline bool put_page_testzero(struct page *page)
{
	VM_BUG_ON(atomic_read(&page->_count) == 0);
	return atomic_dec_and_test(&page->_count);
}

static inline bool get_page_unless_zero(struct page *page)
{
	return atomic_inc_not_zero(&page->_count);
}

/* Nothing here pins a tail page. */
static inline void get_page(struct page *page)
{
	VM_BUG_ON(PageTail(page) || atomic_read(&page->_count) <= 0);
	atomic_inc(&page->_count);
}

void put_page(struct page *page);

/* page[1].lru of a compound page holds destructor and order. */
static inline void set_compound_page_dtor(struct page *page, compound_page_dtor *dtor)
{
	page[1].lru.next = (struct list_head *)dtor;
}

static inline compound_page_dtor *get_compound_page_dtor(struct page *page)
{
	return (compound_page_dtor *)page[1].lru.next;
}

static inline void set_compound_order(struct page *page, unsigned long order)
{
	page[1].lru.prev = (struct list_head *)order;
}

static inline unsigned compound_order(struct page *page)
{
	return PageHead(page) ? (unsigned long)page[1].lru.prev : 0;
}

static inline bool PageAnon(struct page *page)
{
	return (unsigned long)page->mapping & PAGE_MAPPING_ANON;
}

/* What makes a page "anon" for accounting is PageSwapBacked, not PageAnon. */
static inline int page_is_file_cache(struct page *page)
{
	return !PageSwapBacked(page);
}

static inline unsigned long page_private(struct page *page)
{
	return page->private;
}

static inline void set_page_private(struct page *page, unsigned long private)
{
	page->private = private;
}

static inline void *lowmem_page_address(struct page *page)
{
	return __va(page_to_pfn(page) << PAGE_SHIFT);
}

static inline bool PageHighMem(struct page *page)
{
#ifdef CONFIG_HIGHMEM
	return page->flags >> ZONES_PGSHIFT == ZONE_HIGHMEM;
#else
	(void)page;
	return false;
#endif
}

#define page_address(page) lowmem_page_address(page)
#define virt_to_page(address) pfn_to_page(__pa(address) >> PAGE_SHIFT)
#define pmd_page(pmd) pfn_to_page(pmd_pfn(pmd))
#define pte_page(pte) pfn_to_page(pte_pfn(pte))

#define HPAGE_PMD_NR (1UL << HPAGE_PMD_ORDER)
#define hpage_nr_pages(page) (unlikely(PageTransHuge(page)) ? (int)HPAGE_PMD_NR : 1)

static inline bool trylock_page(struct page *page)
{
	return !test_and_set_bit(PG_locked, &page->flags);
}

static inline void unlock_page(struct page *page)
{
	VM_BUG_ON(!PageLocked(page));
	clear_bit(PG_locked, &page->flags);
	smp_mb();
}

void lock_page(struct page *page);
void wait_on_page_locked(struct page *page);

/* From four CPUs on each page table page carries its own lock (USE_SPLIT_PTLOCKS). */
#ifdef CONFIG_SMP
#define pte_lockptr(mm, pmd) ({ (void)(mm); &pmd_page(*(pmd))->ptl; })
#else
#define pte_lockptr(mm, pmd) ({ (void)(pmd); &(mm)->page_table_lock; })
#endif

#define pte_offset_map_lock(mm, pmd, address, ptlp) ({		\
	spinlock_t *ptl_ = pte_lockptr(mm, pmd);		\
	pte_t *pte_ = pte_offset_map(pmd, address);		\
	*(ptlp) = ptl_;						\
	spin_lock(ptl_);					\
	pte_; })
#define pte_unmap_unlock(pte, ptl) do { (void)(pte); spin_unlock(ptl); } while (0)

#define add_mm_counter(mm, member, value) atomic_long_add((value), &(mm)->rss_stat[member])
#define inc_mm_counter(mm, member) atomic_long_inc(&(mm)->rss_stat[member])
#define dec_mm_counter(mm, member) atomic_long_dec(&(mm)->rss_stat[member])

struct mmu_gather;

/* mm/memory.c */
int handle_mm_fault(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, unsigned flags);
int handle_pte_fault(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
		     unsigned flags);
struct page *pte_alloc_one(struct mm_struct *mm);
void pte_free(struct mm_struct *mm, struct page *page);
int __pte_alloc(struct mm_struct *mm, pmd_t *pmd);
void pte_free_tlb(struct mmu_gather *tlb, struct page *page);
void zap_page_range(struct vm_area_struct *vma, unsigned long start, unsigned long end);
int copy_page_range(struct mm_struct *dst_mm, struct mm_struct *src_mm, struct vm_area_struct *vma);
void unmap_vma(struct mmu_gather **tlbp, struct vm_area_struct *vma, unsigned long start, unsigned long end);
void free_pgtables(struct mmu_gather *tlb, struct vm_area_struct *vma, unsigned long floor, unsigned long ceiling);

/* mm/memory-failure.c */
#define MF_COUNT_INCREASED 1
int soft_offline_page(struct page *page, int flags);

/* mm/pgtable-generic.c */
pte_t ptep_clear_flush(struct vm_area_struct *vma, unsigned long address, pte_t *ptep);
pmd_t pmdp_clear_flush(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp);
void pmdp_splitting_flush(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp);
pmd_t pmdp_invalidate(struct vm_area_struct *vma, unsigned long address, pmd_t *pmdp);

/* mm/mmap.c */
struct vm_area_struct *find_vma(struct mm_struct *mm, unsigned long address);
struct vm_area_struct *insert_vm_struct(struct mm_struct *mm, unsigned long start, unsigned long end,
					unsigned long vm_flags);
int dup_mmap(struct mm_struct *mm, struct mm_struct *oldmm);
void exit_mmap(struct mm_struct *mm);

/* arch/x86/mm */
pgd_t *pgd_alloc(void);
void pgd_free(pgd_t *pgd);
#if PAGETABLE_LEVELS > 2
pmd_t *pmd_alloc_one(void);
void pmd_free(struct mm_struct *mm, pmd_t *pmd);
#endif
#if PAGETABLE_LEVELS > 3
pud_t *pud_alloc_one(void);
void pud_free(struct mm_struct *mm, pud_t *pud);
#endif
void find_low_pfn_range(void);
void paging_init(void);
void mem_init(void);
void *alloc_bootmem(unsigned long size);

/* -- levels of the tables: made where missing; NULL without memory -- */

#if PAGETABLE_LEVELS > 3
int __pud_alloc(struct mm_struct *mm, pgd_t *pgd);

static inline pud_t *pud_alloc(struct mm_struct *mm, pgd_t *pgd, unsigned long address)
{
	if (unlikely(pgd_none(*pgd)) && __pud_alloc(mm, pgd))
		return NULL;
	return pud_offset(pgd, address);
}
#endif

#ifdef CONFIG_X86_PAE
/* All user pmds are there from the start: see pgd_alloc(). */
#define pmd_alloc(mm, pud, address) ((void)(mm), pmd_offset(pud, address))
#elif PAGETABLE_LEVELS > 2
int __pmd_alloc(struct mm_struct *mm, pud_t *pud);

static inline pmd_t *pmd_alloc(struct mm_struct *mm, pud_t *pud, unsigned long address)
{
	if (unlikely(pud_none(*pud)) && __pmd_alloc(mm, pud))
		return NULL;
	return pmd_offset(pud, address);
}
#endif

/* The pmd slot of an address if the tables above it are there, else NULL. */
static inline pmd_t *mm_find_pmd(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);

	if (!pgd_present(*pgd))
		return NULL;
	pud_t *pud = pud_offset(pgd, address);
	if (!pud_present(*pud))
		return NULL;
	return pmd_offset(pud, address);
}

#endif
