/* Exception handlers and the way to them (arch/x86/kernel/traps.c, 2.6.39). */
#include <linux/sched.h>
#include <asm/apic.h>
#include <asm/desc.h>
#include <asm/ptrace.h>
#include <racetape/ports.h>

gate_desc idt_table[256] __aligned(64);

extern const struct bug_entry __start___bug_table[], __stop___bug_table[];

#define EXCEPTIONS 20
#define DECLARE_EXCEPTION(n) extern const char exception_##n[]
DECLARE_EXCEPTION(0); DECLARE_EXCEPTION(1); DECLARE_EXCEPTION(2); DECLARE_EXCEPTION(3); DECLARE_EXCEPTION(4);
DECLARE_EXCEPTION(5); DECLARE_EXCEPTION(6); DECLARE_EXCEPTION(7); DECLARE_EXCEPTION(8); DECLARE_EXCEPTION(9);
DECLARE_EXCEPTION(10); DECLARE_EXCEPTION(11); DECLARE_EXCEPTION(12); DECLARE_EXCEPTION(13); DECLARE_EXCEPTION(14);
DECLARE_EXCEPTION(15); DECLARE_EXCEPTION(16); DECLARE_EXCEPTION(17); DECLARE_EXCEPTION(18); DECLARE_EXCEPTION(19);
extern const char apic_timer_interrupt[], reschedule_interrupt[], invalidate_interrupt_entries[], spurious_interrupt[];

static const char *const exception_entry[EXCEPTIONS] = {
	exception_0, exception_1, exception_2, exception_3, exception_4, exception_5, exception_6, exception_7,
	exception_8, exception_9, exception_10, exception_11, exception_12, exception_13, exception_14, exception_15,
	exception_16, exception_17, exception_18, exception_19,
};

static void set_intr_gate(unsigned vector, const char *entry)
{
	idt_table[vector] = pack_intr_gate(entry);
}

void trap_init(void)
{
	for (unsigned vector = 0; vector < EXCEPTIONS; vector++)
		set_intr_gate(vector, exception_entry[vector]);
	set_intr_gate(LOCAL_TIMER_VECTOR, apic_timer_interrupt);
	set_intr_gate(SPURIOUS_APIC_VECTOR, spurious_interrupt);
#ifdef CONFIG_SMP
	set_intr_gate(RESCHEDULE_VECTOR, reschedule_interrupt);
	for (unsigned sender = 0; sender < NUM_INVALIDATE_TLB_VECTORS; sender++)
		set_intr_gate(INVALIDATE_TLB_VECTOR_START + sender,
			      invalidate_interrupt_entries + sender * INVALIDATE_ENTRY_SIZE);
#endif
}

void do_unexpected(struct pt_regs *regs, unsigned long error_code, unsigned long vector)
{
	printk("Oops:");
	printk_hex(" vector ", vector);
	printk_hex(" code ", error_code);
	printk_hex(" ip ", regs->ip);
	printk_hex(" cr2 ", read_cr2());
	printk_hex(" task ", (unsigned long)current);
	printk("\n");
	machine_exit(EXIT_OOPS);
}

/* ud2: a BUG() if the table knows the address. */
void do_invalid_op(struct pt_regs *regs, unsigned long error_code, unsigned long vector)
{
	for (const struct bug_entry *bug = __start___bug_table; bug < __stop___bug_table; bug++) {
		if (BUG_POINTER(bug, bug->bug_addr) != regs->ip)
			continue;
		char digits[11];
		char *text = digits + sizeof(digits) - 1;
		*text = '\0';
		for (u32 line = bug->line; line; line /= 10)
			*--text = '0' + line % 10;
		printk("kernel BUG at ");
		printk((const char *)BUG_POINTER(bug, bug->file));
		printk(":");
		printk(text);
		printk("\n");
		machine_exit(EXIT_BUG);
	}
	do_unexpected(regs, error_code, vector);
}
