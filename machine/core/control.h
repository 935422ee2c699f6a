/* Control registers, model-specific registers and CPUID: what the processor is and how it is set up. SDM vol. 3, 2.5;
 * vol. 4; vol. 2 "CPUID". */
#ifndef RACETAPE_CONTROL_H
#define RACETAPE_CONTROL_H

#include "op.h"

enum {
	CR0_KNOWN = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD, /* and PG */
	CR4_KNOWN = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE,
	EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
};

/* MOV to CR0, CR2, CR3, CR4, CR8, with all checks and effects. */
enum status control_write(struct cpu *c, uint32_t number, uint64_t value);
/* #GP for a register that does not exist, or a value it cannot hold. */
enum status msr_read(struct cpu *c, uint32_t number, uint64_t *ret);
enum status msr_write(struct cpu *c, uint32_t number, uint64_t value);
/* DR0 to DR3, DR6 and DR7. */
void debug_register_set(struct cpu *c, uint32_t number, uint64_t value);
/* Reads the four page-directory pointers at CR3 (PAE paging). #GP if a reserved bit is set. */
enum status pdptes_load(struct cpu *c, uint64_t cr3);

#endif
