/* Anonymous reverse mapping (include/linux/rmap.h, 2.6.39): anon_vma, reached from each vma through chain links. */
#ifndef LINUX_RMAP_H
#define LINUX_RMAP_H

#include <linux/mm.h>

struct anon_vma {
	struct anon_vma *root;
	spinlock_t lock;		/* the root's serves all */
	atomic_t refcount;
	struct list_head head;		/* anon_vma_chain.same_anon_vma */
};

struct anon_vma_chain {
	struct vm_area_struct *vma;
	struct anon_vma *anon_vma;
	struct list_head same_vma;
	struct list_head same_anon_vma;
};

enum ttu_flags { TTU_UNMAP, TTU_MIGRATION };

#define SWAP_SUCCESS 0
#define SWAP_AGAIN 1
#define SWAP_FAIL 2

int anon_vma_prepare(struct vm_area_struct *vma);
int anon_vma_fork(struct vm_area_struct *vma, struct vm_area_struct *pvma);
void unlink_anon_vmas(struct vm_area_struct *vma);
struct anon_vma *page_lock_anon_vma(struct page *page);
void page_unlock_anon_vma(struct anon_vma *anon_vma);
void put_anon_vma(struct anon_vma *anon_vma);

void page_add_anon_rmap(struct page *page, struct vm_area_struct *vma, unsigned long address);
void page_add_new_anon_rmap(struct page *page, struct vm_area_struct *vma, unsigned long address);
void page_remove_rmap(struct page *page);
int try_to_unmap(struct page *page, enum ttu_flags flags);
int rmap_walk(struct page *page, int (*rmap_one)(struct page *, struct vm_area_struct *, unsigned long, void *),
	      void *arg);

static inline void page_dup_rmap(struct page *page)
{
	atomic_inc(&page->_mapcount);
}

static inline void get_anon_vma(struct anon_vma *anon_vma)
{
	atomic_inc(&anon_vma->refcount);
}

static inline unsigned long vma_address(struct page *page, struct vm_area_struct *vma)
{
	return vma->vm_start + ((page->index - vma->vm_pgoff) << PAGE_SHIFT);
}

#endif
