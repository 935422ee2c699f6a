/*
 * Per-CPU variables (arch/x86/include/asm/percpu.h, 2.6.39). SMP: one copy of section .data..percpu per CPU, reached
 * through %fs (x86-32) or %gs (x86-64); each this_cpu operation is ONE unlocked instruction, whole against interrupts
 * on this CPU and not against other CPUs. UP: plain variables.
 */
#ifndef ASM_PERCPU_H
#define ASM_PERCPU_H

#include <asm/system.h>

#ifdef CONFIG_SMP
#define DEFINE_PER_CPU(type, name) __section(".data..percpu") typeof(type) name
#ifdef CONFIG_X86_64
#define PER_CPU_SEG "%%gs:"
#else
#define PER_CPU_SEG "%%fs:"
#endif
extern unsigned long __per_cpu_offset[NR_CPUS];
extern char __per_cpu_start[], __per_cpu_end[];
#define per_cpu_ptr(ptr, cpu) ((typeof(ptr))((unsigned long)(ptr) + __per_cpu_offset[cpu]))
#define this_cpu_ptr(ptr) ((typeof(ptr))((unsigned long)(ptr) + percpu_read(this_cpu_off)))
#else
#define DEFINE_PER_CPU(type, name) typeof(type) name
#define PER_CPU_SEG ""
#define per_cpu_ptr(ptr, cpu) ({ (void)(cpu); (ptr); })
#define this_cpu_ptr(ptr) (ptr)
#endif

#define DECLARE_PER_CPU(type, name) extern typeof(type) name
#define per_cpu(var, cpu) (*per_cpu_ptr(&(var), cpu))
#define __get_cpu_var(var) (*this_cpu_ptr(&(var)))

DECLARE_PER_CPU(unsigned long, this_cpu_off);
DECLARE_PER_CPU(int, cpu_number);

#define percpu_read(var) ({								\
	typeof(var) v_;									\
	asm volatile("mov " PER_CPU_SEG "%1, %0" : "=r" (v_) : "m" (var));		\
	v_; })
/* For what cannot change under its reader (current): the compiler may keep the value. */
#define percpu_read_stable(var) ({							\
	typeof(var) v_;									\
	asm("mov " PER_CPU_SEG "%P1, %0" : "=r" (v_) : "p" (&(var)));			\
	v_; })
#define percpu_write(var, value) do {							\
	if (sizeof(var) == 8)								\
		asm volatile("movq %1, " PER_CPU_SEG "%0" : "=m" (var) : "re" (value));	\
	else										\
		asm volatile("movl %1, " PER_CPU_SEG "%0" : "=m" (var) : "ri" (value));	\
} while (0)

/* The same on a byte reached through a per-CPU pointer: the vmstat differentials. */
#define this_cpu_read_s8(ptr) ({							\
	s8 v_;										\
	asm volatile("movb " PER_CPU_SEG "%1, %0" : "=q" (v_) : "m" (*(ptr)));		\
	v_; })
#define this_cpu_write_s8(ptr, value)							\
	asm volatile("movb %1, " PER_CPU_SEG "%0" : "=m" (*(ptr)) : "q" ((s8)(value)))
#define this_cpu_inc_return_s8(ptr) ({							\
	asm volatile("incb " PER_CPU_SEG "%0" : "+m" (*(ptr)) : : "cc");		\
	this_cpu_read_s8(ptr); })
#define this_cpu_dec_return_s8(ptr) ({							\
	asm volatile("decb " PER_CPU_SEG "%0" : "+m" (*(ptr)) : : "cc");		\
	this_cpu_read_s8(ptr); })
#define this_cpu_cmpxchg_s8(ptr, old, new) ({						\
	s8 before_;									\
	asm volatile("cmpxchgb %2, " PER_CPU_SEG "%1"					\
		     : "=a" (before_), "+m" (*(ptr)) : "q" ((s8)(new)), "0" ((s8)(old)) : "cc");	\
	before_; })

#ifdef CONFIG_SMP
#define smp_processor_id() percpu_read(cpu_number)
#else
#define smp_processor_id() 0
#endif

#endif
