/* Descriptor tables and exception handlers (arch/x86/kernel/traps.c, cpu/common.c, 2.6.39). */
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/desc.h>
#include <asm/ptrace.h>
#include <racetape/ports.h>

DEFINE_PER_CPU(unsigned long, this_cpu_off);
DEFINE_PER_CPU(int, cpu_number);
static DEFINE_PER_CPU(struct desc_struct, gdt_table[GDT_ENTRIES]) __aligned(64);
DEFINE_PER_CPU(struct tss_struct, init_tss);

static struct desc_struct idt_table[256] __aligned(64);

extern const struct bug_entry __start___bug_table[], __stop___bug_table[];

#define EXCEPTIONS 20
#define DECLARE_EXCEPTION(n) extern const char exception_##n[]
DECLARE_EXCEPTION(0); DECLARE_EXCEPTION(1); DECLARE_EXCEPTION(2); DECLARE_EXCEPTION(3); DECLARE_EXCEPTION(4);
DECLARE_EXCEPTION(5); DECLARE_EXCEPTION(6); DECLARE_EXCEPTION(7); DECLARE_EXCEPTION(8); DECLARE_EXCEPTION(9);
DECLARE_EXCEPTION(10); DECLARE_EXCEPTION(11); DECLARE_EXCEPTION(12); DECLARE_EXCEPTION(13); DECLARE_EXCEPTION(14);
DECLARE_EXCEPTION(15); DECLARE_EXCEPTION(16); DECLARE_EXCEPTION(17); DECLARE_EXCEPTION(18); DECLARE_EXCEPTION(19);
extern const char apic_timer_interrupt[], reschedule_interrupt[], invalidate_interrupt[], spurious_interrupt[];

static const char *const exception_entry[EXCEPTIONS] = {
	exception_0, exception_1, exception_2, exception_3, exception_4, exception_5, exception_6, exception_7,
	exception_8, exception_9, exception_10, exception_11, exception_12, exception_13, exception_14, exception_15,
	exception_16, exception_17, exception_18, exception_19,
};

static void set_intr_gate(unsigned vector, const char *entry)
{
	u32 address = (u32)entry;

	idt_table[vector].a = (KERNEL_CS << 16) | (address & 0xffff);
	idt_table[vector].b = (address & 0xffff0000) | 0x8e00;
}

static struct desc_struct segment(u32 base, u32 limit, u32 access)
{
	struct desc_struct desc = {
		.a = (base << 16) | (limit & 0xffff),
		.b = (base & 0xff000000) | ((base >> 16) & 0xff) | (limit & 0xf0000) | access,
	};

	return desc;
}

/* Load this CPU's own descriptor tables. Runs with the CPU's thread_info already in place. */
void cpu_init(void)
{
	unsigned cpu = current_thread_info()->cpu;
	struct desc_struct *gdt = per_cpu_ptr(&gdt_table[0], cpu);
	struct tss_struct *tss = per_cpu_ptr(&init_tss, cpu);
	struct desc_ptr gdtr = { sizeof(gdt_table) - 1, (u32)gdt };
	struct desc_ptr idtr = { sizeof(idt_table) - 1, (u32)idt_table };

	gdt[KERNEL_CS / 8] = segment(0, 0xfffff, 0xc09b00);
	gdt[KERNEL_DS / 8] = segment(0, 0xfffff, 0xc09300);
#ifdef CONFIG_SMP
	gdt[KERNEL_PERCPU / 8] = segment(__per_cpu_offset[cpu], 0xfffff, 0xc09300);
#endif
	tss->ss0 = KERNEL_DS;
	tss->sp0 = (u32)current_thread_info() + THREAD_SIZE;
	tss->io_bitmap_base = sizeof(*tss);
	gdt[TSS_SELECTOR / 8] = segment((u32)tss, sizeof(*tss) - 1, 0x8900);

	asm volatile("lgdt %0\n\t"
		     "ljmp %1, $1f\n"
		     "1:\n\t"
		     "movl %2, %%ds\n\t"
		     "movl %2, %%es\n\t"
		     "movl %2, %%ss\n\t"
		     "movl %2, %%gs\n\t"
		     "movl %3, %%fs\n\t"
		     "lidt %4\n\t"
		     "ltr %w5"
		     : : "m" (gdtr), "i" (KERNEL_CS), "r" (KERNEL_DS),
#ifdef CONFIG_SMP
		     "r" (KERNEL_PERCPU),
#else
		     "r" (KERNEL_DS),
#endif
		     "m" (idtr), "r" (TSS_SELECTOR) : "memory");
#ifdef CONFIG_SMP
	percpu_write(this_cpu_off, __per_cpu_offset[cpu]);
	percpu_write(cpu_number, cpu);
#endif
}

void trap_init(void)
{
	for (unsigned vector = 0; vector < EXCEPTIONS; vector++)
		set_intr_gate(vector, exception_entry[vector]);
	set_intr_gate(LOCAL_TIMER_VECTOR, apic_timer_interrupt);
	set_intr_gate(SPURIOUS_APIC_VECTOR, spurious_interrupt);
#ifdef CONFIG_SMP
	set_intr_gate(RESCHEDULE_VECTOR, reschedule_interrupt);
	set_intr_gate(INVALIDATE_TLB_VECTOR, invalidate_interrupt);
#endif
}

void do_unexpected(struct pt_regs *regs, unsigned long error_code, unsigned long vector)
{
	printk("Oops:");
	printk_hex(" vector ", vector);
	printk_hex(" code ", error_code);
	printk_hex(" eip ", regs->ip);
	printk_hex(" cr2 ", read_cr2());
	printk_hex(" task ", (u32)current);
	printk("\n");
	machine_exit(EXIT_OOPS);
}

/* ud2: a BUG() if the table knows the address. */
void do_invalid_op(struct pt_regs *regs, unsigned long error_code, unsigned long vector)
{
	for (const struct bug_entry *bug = __start___bug_table; bug < __stop___bug_table; bug++) {
		if (bug->bug_addr != regs->ip)
			continue;
		char digits[11];
		char *text = digits + sizeof(digits) - 1;
		*text = '\0';
		for (u32 line = bug->line; line; line /= 10)
			*--text = '0' + line % 10;
		printk("kernel BUG at ");
		printk((const char *)bug->file);
		printk(":");
		printk(text);
		printk("\n");
		machine_exit(EXIT_BUG);
	}
	do_unexpected(regs, error_code, vector);
}
