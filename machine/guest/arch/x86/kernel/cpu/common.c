/* What each CPU sets up for itself (arch/x86/kernel/cpu/common.c, 2.6.39). */
#include <linux/sched.h>
#include <asm/desc.h>
#include <asm/msr.h>
#include <asm/processor-flags.h>

DEFINE_PER_CPU(unsigned long, this_cpu_off);
DEFINE_PER_CPU(int, cpu_number);
DEFINE_PER_CPU(struct desc_struct, gdt_table[GDT_ENTRIES]) __aligned(64);
DEFINE_PER_CPU(struct tss_struct, init_tss);

extern gate_desc idt_table[256];

#if PAGETABLE_LEVELS > 2
pteval_t __supported_pte_mask = ~_PAGE_NX;

/* The first instructions have set EFER accordingly (head_32.S, head_64.S). */
static void x86_configure_nx(void)
{
	__supported_pte_mask = rdmsrl(MSR_EFER) & EFER_NX ? ~(pteval_t)0 : ~_PAGE_NX;
}
#else
static void x86_configure_nx(void) { }
#endif

#ifdef CONFIG_X86_64
/* The first CPU runs on init_task's stack from the start; smpboot.c sets the others' before they do. */
DEFINE_PER_CPU(unsigned long, kernel_stack) =
	(unsigned long)&init_thread_union - KERNEL_STACK_OFFSET + THREAD_SIZE;

static void fill_gdt(struct desc_struct *gdt, struct tss_struct *tss, unsigned cpu)
{
	(void)cpu;
	gdt[KERNEL32_CS / 8] = pack_segment(0, 0xfffff, 0xc09b00);
	gdt[KERNEL_CS / 8] = pack_segment(0, 0xfffff, 0xa09b00);
	gdt[KERNEL_DS / 8] = pack_segment(0, 0xfffff, 0xc09300);
	gdt[TSS_SELECTOR / 8] = pack_segment((unsigned long)tss, sizeof(*tss) - 1, 0x8900);
	gdt[TSS_SELECTOR / 8 + 1] = (struct desc_struct) { .a = (unsigned long)tss >> 32 };
}

/* Far RET changes cs; loading gs would clear the base that finds our per-CPU data, so that comes last. */
static void load_segments(unsigned cpu)
{
	asm volatile("pushq %0\n\t"
		     "leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t"
		     "lretq\n"
		     "1:\n\t"
		     "movl %1, %%ds\n\t"
		     "movl %1, %%es\n\t"
		     "movl %1, %%ss"
		     : : "i" (KERNEL_CS), "r" (KERNEL_DS) : "rax", "memory");
#ifdef CONFIG_SMP
	wrmsrl(MSR_GS_BASE, __per_cpu_offset[cpu]);
#else
	(void)cpu;
#endif
}
#else
static void fill_gdt(struct desc_struct *gdt, struct tss_struct *tss, unsigned cpu)
{
	gdt[KERNEL_CS / 8] = pack_segment(0, 0xfffff, 0xc09b00);
	gdt[KERNEL_DS / 8] = pack_segment(0, 0xfffff, 0xc09300);
#ifdef CONFIG_SMP
	gdt[KERNEL_PERCPU / 8] = pack_segment(__per_cpu_offset[cpu], 0xfffff, 0xc09300);
#else
	(void)cpu;
#endif
	tss->ss0 = KERNEL_DS;
	gdt[TSS_SELECTOR / 8] = pack_segment((u32)tss, sizeof(*tss) - 1, 0x8900);
}

static void load_segments(unsigned cpu)
{
	(void)cpu;
	asm volatile("ljmp %0, $1f\n"
		     "1:\n\t"
		     "movl %1, %%ds\n\t"
		     "movl %1, %%es\n\t"
		     "movl %1, %%ss\n\t"
		     "movl %1, %%gs\n\t"
		     "movl %2, %%fs"
		     : : "i" (KERNEL_CS), "r" (KERNEL_DS),
#ifdef CONFIG_SMP
		     "r" (KERNEL_PERCPU)
#else
		     "r" (KERNEL_DS)
#endif
		     : "memory");
}
#endif

/* Load this CPU's own descriptor tables. Runs with the CPU's thread_info already in place. */
void cpu_init(void)
{
	unsigned cpu = current_thread_info()->cpu;
	struct desc_struct *gdt = per_cpu_ptr(&gdt_table[0], cpu);
	struct tss_struct *tss = per_cpu_ptr(&init_tss, cpu);
	struct desc_ptr gdtr = { sizeof(gdt_table) - 1, (unsigned long)gdt };
	struct desc_ptr idtr = { sizeof(idt_table) - 1, (unsigned long)idt_table };

	x86_configure_nx();
	fill_gdt(gdt, tss, cpu);
	tss->sp0 = (unsigned long)current_thread_info() + THREAD_SIZE;
	tss->io_bitmap_base = sizeof(*tss);

	asm volatile("lgdt %0" : : "m" (gdtr) : "memory");
	load_segments(cpu);
	asm volatile("lidt %0\n\t"
		     "ltr %w1" : : "m" (idtr), "r" (TSS_SELECTOR) : "memory");
#ifdef CONFIG_SMP
	percpu_write(this_cpu_off, __per_cpu_offset[cpu]);
	percpu_write(cpu_number, cpu);
#endif
}
