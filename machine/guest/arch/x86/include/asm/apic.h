/* The local APIC, memory mapped (docs/platform.md). */
#ifndef ASM_APIC_H
#define ASM_APIC_H

#include <asm/fixmap.h>
#include <asm/irq_vectors.h>

#define APIC_DEFAULT_PHYS_BASE 0xfee00000U

#define APIC_ID 0x20
#define APIC_TASKPRI 0x80
#define APIC_EOI 0xB0
#define APIC_SPIV 0xF0
#define APIC_SPIV_APIC_ENABLED (1U << 8)
#define APIC_ICR 0x300
#define APIC_DM_FIXED 0x000U
#define APIC_DM_STARTUP 0x600U
#define APIC_ICR2 0x310
#define APIC_LVTT 0x320
#define APIC_LVT_MASKED (1U << 16)
#define APIC_TMICT 0x380

static inline u32 apic_read(u32 reg)
{
	return *(volatile u32 *)(__fix_to_virt(FIX_APIC_BASE) + reg);
}

static inline void apic_write(u32 reg, u32 value)
{
	*(volatile u32 *)(__fix_to_virt(FIX_APIC_BASE) + reg) = value;
}

static inline void ack_APIC_irq(void)
{
	apic_write(APIC_EOI, 0);
}

void apic_map(void);
void setup_local_APIC(void);
void setup_APIC_timer(void);
void apic_send_ipi(unsigned cpu, u32 mode_and_vector);

#endif
