/* Segment registers and descriptors. SDM vol. 3 chapters 3 and 5. */
#ifndef RACETAPE_SEGMENT_H
#define RACETAPE_SEGMENT_H

#include "op.h"

enum descriptor_type {
	DESCRIPTOR_ACCESSED = 0x01,
	DESCRIPTOR_WRITABLE = 0x02, /* data: writable; code: readable */
	DESCRIPTOR_DOWN = 0x04,	    /* data: expand-down; code: conforming */
	DESCRIPTOR_CODE = 0x08,
	DESCRIPTOR_SEGMENT = 0x10, /* code or data, not a system descriptor */
	DESCRIPTOR_PRESENT = 0x80,
	DESCRIPTOR_TSS_AVAILABLE = 0x09,
	DESCRIPTOR_TSS_BUSY = 0x0b,
	DESCRIPTOR_LDT = 0x02,
};

/* A flat 4 GB segment of privilege selector & 3, as the platform hands it to the guest. */
struct segment_register segment_flat(uint16_t selector, bool code);
/* The same as SYSCALL and its kin set it up, of a privilege and, for code, of 32 or 64 bits. */
struct segment_register segment_fixed(uint16_t selector, bool code, uint32_t privilege, uint32_t bits);
/* What is left of a data segment register that is loaded with a null selector. */
struct segment_register segment_null(uint16_t selector);
/* Whether a segment's limit and type allow an access. */
bool segment_allows(const struct segment_register *s, uint64_t offset, uint32_t size, bool write);
/* Reads the descriptor of `selector` from the GDT or LDT (implicit loads). On a bad selector, fault `vector` with the
 * selector as error code. */
enum status descriptor_read(struct cpu *c, uint16_t selector, uint8_t vector, uint64_t *ret);
struct segment_register descriptor_decode(uint16_t selector, uint64_t descriptor);
/* A TSS or LDT, of which 64-bit code has descriptors of 16 bytes: `descriptor` is the first half. */
enum status descriptor_read_system(struct cpu *c, uint16_t selector, uint64_t descriptor, struct segment_register *ret);
/* Sets the accessed bit of a code or data descriptor in memory, if clear. */
enum status descriptor_mark_accessed(struct cpu *c, uint16_t selector, uint64_t descriptor);
/* MOV Sreg, POP Sreg: with all the checks. */
enum status segment_load(struct cpu *c, uint32_t segment, uint16_t selector);
/* Whether a far transfer may go to `offset` in `code`: within its limit, or canonical in 64-bit code; #GP otherwise. */
enum status segment_check_target(struct cpu *c, const struct segment_register *code, uint64_t offset);
/* The stack segment of a return to `privilege`; null is allowed in 64-bit code of an inner privilege. */
enum status segment_check_stack(struct cpu *c, uint16_t selector, uint32_t privilege, bool to_64bit,
				struct segment_register *ret);
/* Code segment for a far transfer without change of privilege (direct) or for IRET/RET (to `privilege`). */
enum status segment_check_code(struct cpu *c, uint16_t selector, uint32_t privilege, bool is_return,
			       struct segment_register *ret);
void segment_set_code(struct cpu *c, const struct segment_register *code);
/* On a return to an outer privilege, data segments that the outer one may not use become null. */
void segments_drop_inner(struct cpu *c);

#endif
