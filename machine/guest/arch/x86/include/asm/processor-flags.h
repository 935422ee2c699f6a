/* Control register bits (arch/x86/include/asm/processor-flags.h, 2.6.39), for C and assembly. */
#ifndef ASM_PROCESSOR_FLAGS_H
#define ASM_PROCESSOR_FLAGS_H

#define X86_CR0_PE 0x00000001
#define X86_CR0_WP 0x00010000
#define X86_CR0_PG 0x80000000
#define X86_CR4_PSE 0x00000010
#define X86_CR4_PAE 0x00000020

/* CPUID 0x80000001, EDX. */
#define X86_FEATURE_NX_BIT 20

#endif
