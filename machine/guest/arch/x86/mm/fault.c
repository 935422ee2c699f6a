/* Page faults (arch/x86/mm/fault.c, 2.6.39). All code runs in ring 0; user addresses are touched from there. */
#include <linux/mm.h>
#include <asm/ptrace.h>
#include <racetape/tracepoint.h>

#define PF_WRITE 2UL

void do_unexpected(struct pt_regs *regs, unsigned long error_code, unsigned long vector);

void do_page_fault(struct pt_regs *regs, unsigned long error_code, unsigned long vector)
{
	/* Interrupts are still off: the next fault would overwrite cr2. */
	unsigned long address = read_cr2();
	struct mm_struct *mm = current->mm;

	trace_fault(address, error_code);
	if (address >= TASK_SIZE_MAX || in_atomic() || !mm)
		do_unexpected(regs, error_code, vector);
	if (regs->flags & X86_EFLAGS_IF)
		local_irq_enable();

	down_read(&mm->mmap_sem);
	struct vm_area_struct *vma = find_vma(mm, address);
	if (!vma || vma->vm_start > address)
		do_unexpected(regs, error_code, vector);
	bool write = error_code & PF_WRITE;
	if (!(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
		do_unexpected(regs, error_code, vector);
	int fault = handle_mm_fault(mm, vma, address, write ? FAULT_FLAG_WRITE : 0);
	up_read(&mm->mmap_sem);
	/* Out of memory with a signal pending would kill a user task on the way out; there is no way out of ring 0. */
	if (fault)
		do_unexpected(regs, error_code, vector);
}
