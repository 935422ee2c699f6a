/* Address spaces as lists of vmas (mm/mmap.c and the dup_mmap of kernel/fork.c, 2.6.39). */
#include <linux/mm.h>
#include <linux/rmap.h>
#include <linux/slab.h>
#include <asm-generic/tlb.h>
#include <asm/tlbflush.h>

DEFINE_KMEM_CACHE(vm_area_cache, struct vm_area_struct);

/* The first vma that ends above `address`. */
struct vm_area_struct *find_vma(struct mm_struct *mm, unsigned long address)
{
	struct vm_area_struct *vma = mm->mmap;

	while (vma && vma->vm_end <= address)
		vma = vma->vm_next;
	return vma;
}

/* Appends: callers go upwards. Caller holds mmap_sem for writing, or is alone. */
static struct vm_area_struct *append_vma(struct mm_struct *mm, unsigned long start, unsigned long end,
					 unsigned long vm_flags)
{
	struct vm_area_struct *vma = kmem_cache_zalloc(&vm_area_cache);
	struct vm_area_struct **at = &mm->mmap;

	if (!vma)
		return NULL;
	vma->vm_mm = mm;
	vma->vm_start = start;
	vma->vm_end = end;
	vma->vm_flags = vm_flags;
	vma->vm_page_prot = PAGE_COPY;
	vma->vm_pgoff = start >> PAGE_SHIFT;
	INIT_LIST_HEAD(&vma->anon_vma_chain);
	while (*at)
		at = &(*at)->vm_next;
	*at = vma;
	return vma;
}

struct vm_area_struct *insert_vm_struct(struct mm_struct *mm, unsigned long start, unsigned long end,
					unsigned long vm_flags)
{
	down_write(&mm->mmap_sem);
	struct vm_area_struct *vma = append_vma(mm, start, end, vm_flags);
	up_write(&mm->mmap_sem);
	return vma;
}

int dup_mmap(struct mm_struct *mm, struct mm_struct *oldmm)
{
	int retval = -ENOMEM;

	down_write(&oldmm->mmap_sem);
	down_write(&mm->mmap_sem);
	for (struct vm_area_struct *mpnt = oldmm->mmap; mpnt; mpnt = mpnt->vm_next) {
		struct vm_area_struct *tmp = append_vma(mm, mpnt->vm_start, mpnt->vm_end, mpnt->vm_flags);

		if (!tmp || anon_vma_fork(tmp, mpnt) || copy_page_range(mm, oldmm, mpnt))
			goto out;
	}
	retval = 0;
out:
	up_write(&mm->mmap_sem);
	/* Until here other threads of the parent may still write through stale TLB entries. */
	flush_tlb_mm(oldmm);
	up_write(&oldmm->mmap_sem);
	return retval;
}

/* The last user is gone, but CPUs may still have the mm loaded, borrowed by kernel threads. */
void exit_mmap(struct mm_struct *mm)
{
	struct mmu_gather *tlb = tlb_gather_mmu(mm, true);
	struct vm_area_struct *vma, *next;

	for (vma = mm->mmap; vma; vma = vma->vm_next)
		unmap_vma(&tlb, vma, vma->vm_start, vma->vm_end);
	for (vma = mm->mmap; vma; vma = vma->vm_next) {
		/* Out of rmap's sight first: a walker may hold a pmd it has read, and lock the table behind it. */
		unlink_anon_vmas(vma);
		free_pgtables(tlb, vma, 0, vma->vm_next ? vma->vm_next->vm_start : 0);
	}
	tlb_finish_mmu(tlb);
	for (vma = mm->mmap; vma; vma = next) {
		next = vma->vm_next;
		kmem_cache_free(&vm_area_cache, vma);
	}
	mm->mmap = NULL;
}
