/* Segment and gate descriptors, the task state segment (arch/x86/include/asm/desc.h, processor.h, 2.6.39). */
#ifndef ASM_DESC_H
#define ASM_DESC_H

#include <asm/page.h>

#define GDT_ENTRIES 32

struct desc_struct { u32 a, b; };

struct desc_ptr {
	u16 size;
	unsigned long address;
} __attribute__((packed));

#ifdef CONFIG_X86_64
typedef struct { u32 a, b, offset_high, zero; } gate_desc;

/* Only sp0 would matter, had anything a ring 3; no gate asks for a stack of its own (IST). */
struct tss_struct {
	u32 reserved1;
	u64 sp0, sp1, sp2;
	u64 reserved2;
	u64 ist[7];
	u32 reserved3, reserved4;
	u16 reserved5, io_bitmap_base;
} __attribute__((packed));
#else
typedef struct desc_struct gate_desc;

/* Only esp0 and ss0 matter: nothing here switches tasks in hardware. */
struct tss_struct {
	u32 back_link, sp0, ss0;
	u32 unused[22];
	u16 trace, io_bitmap_base;
};
#endif

/* An interrupt gate to kernel code: interrupts are off behind it. */
static inline gate_desc pack_intr_gate(const char *entry)
{
	unsigned long address = (unsigned long)entry;
	gate_desc gate = {
		.a = (KERNEL_CS << 16) | (address & 0xffff),
		.b = (address & 0xffff0000) | 0x8e00,
#ifdef CONFIG_X86_64
		.offset_high = address >> 32,
#endif
	};

	return gate;
}

static inline struct desc_struct pack_segment(u32 base, u32 limit, u32 access)
{
	struct desc_struct desc = {
		.a = (base << 16) | (limit & 0xffff),
		.b = (base & 0xff000000) | ((base >> 16) & 0xff) | (limit & 0xf0000) | access,
	};

	return desc;
}

void cpu_init(void);
void trap_init(void);

#endif
