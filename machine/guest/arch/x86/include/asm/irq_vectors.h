/* Interrupt vectors (arch/x86/include/asm/irq_vectors.h, 2.6.39). */
#ifndef ASM_IRQ_VECTORS_H
#define ASM_IRQ_VECTORS_H

#include <racetape/config.h>

/* One for each CPU that can ask others to flush: no two senders share a request. */
#define NUM_INVALIDATE_TLB_VECTORS NR_CPUS
#define INVALIDATE_TLB_VECTOR_END 0xEE
#define INVALIDATE_TLB_VECTOR_START (INVALIDATE_TLB_VECTOR_END - NUM_INVALIDATE_TLB_VECTORS + 1)
#define INVALIDATE_ENTRY_SIZE 64	/* code bytes between two senders' entry points */

#define LOCAL_TIMER_VECTOR 0xEF
#define RESCHEDULE_VECTOR 0xFD
#define SPURIOUS_APIC_VECTOR 0xFF

#endif
