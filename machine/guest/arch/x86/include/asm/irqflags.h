#ifndef ASM_IRQFLAGS_H
#define ASM_IRQFLAGS_H

#define X86_EFLAGS_IF 0x200UL

static inline unsigned long native_save_fl(void)
{
	unsigned long flags;

	asm volatile("pushf ; pop %0" : "=rm" (flags) : : "memory");
	return flags;
}

static inline void local_irq_disable(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void local_irq_enable(void)
{
	asm volatile("sti" : : : "memory");
}

/* STI holds interrupts off for one more instruction, so none can slip between it and HLT. */
static inline void safe_halt(void)
{
	asm volatile("sti; hlt" : : : "memory");
}

#define local_irq_save(flags) do { (flags) = native_save_fl(); local_irq_disable(); } while (0)
#define local_irq_restore(flags) asm volatile("push %0 ; popf" : : "g" (flags) : "memory", "cc")
#define irqs_disabled() (!(native_save_fl() & X86_EFLAGS_IF))

#endif
