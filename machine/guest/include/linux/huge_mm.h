#ifndef LINUX_HUGE_MM_H
#define LINUX_HUGE_MM_H

#include <linux/mm.h>

#define HPAGE_PMD_SIZE PMD_SIZE
#define HPAGE_PMD_MASK PMD_MASK

int do_huge_pmd_anonymous_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
			       unsigned flags);
int do_huge_pmd_wp_page(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long address, pmd_t *pmd,
			pmd_t orig_pmd);
int copy_huge_pmd(struct mm_struct *dst_mm, struct mm_struct *src_mm, pmd_t *dst_pmd, pmd_t *src_pmd,
		  unsigned long addr, struct vm_area_struct *vma);
int zap_huge_pmd(struct mmu_gather *tlb, struct vm_area_struct *vma, pmd_t *pmd);
void prepare_pmd_huge_pte(struct page *pgtable, struct mm_struct *mm);
struct page *get_pmd_huge_pte(struct mm_struct *mm);
int split_huge_page(struct page *page);
void split_huge_page_pmd(struct mm_struct *mm, pmd_t *pmd);
bool collapse_huge_page(struct mm_struct *mm, unsigned long address);
bool khugepaged_scan_pmd(struct mm_struct *mm, unsigned long address);
void clear_huge_page(struct page *page, unsigned long addr, unsigned pages_per_huge_page);

#endif
