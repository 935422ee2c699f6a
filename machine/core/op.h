/* A decoded instruction, and the rows of the one instruction table. */
#ifndef RACETAPE_OP_H
#define RACETAPE_OP_H

#include "machine.h"

typedef enum status (*op_handler)(struct cpu *c, const struct op *op);

enum op_flags {
	OP_MEMORY = 1,	/* the E operand is in memory */
	OP_LOCK = 2,	/* LOCK prefix */
	OP_DRAIN = 4,	/* executes only when the CPU's store buffer is empty */
	OP_STORES = 8,	/* may store: executes only when the store buffer is below capacity */
	OP_REP = 16,	/* F3 */
	OP_REPNE = 32,	/* F2 */
};

struct op {
	op_handler handler;
	int64_t immediate; /* sign-extended, but for the forms that take it as a count, port or frame size */
	int32_t displacement;
	uint16_t row; /* in the instruction table */
	uint16_t selector; /* far selector; nesting level of ENTER */
	uint8_t reg;	/* ModRM.reg, or the register in the opcode */
	uint8_t rm;	/* ModRM.rm as a register */
	uint8_t base;	/* GPR_ZERO if none */
	uint8_t index;	/* GPR_ZERO if none */
	uint8_t scale;	/* shift count */
	uint8_t segment;
	uint8_t size;	/* of the operands, bytes */
	uint8_t length; /* of the instruction, bytes */
	uint8_t address_size; /* bytes */
	uint8_t flags;
	uint8_t opcode;
};

/* Handlers of one operation: [E operand in memory][log2 of the operand size]. NULL: not defined (yet). */
struct handlers {
	op_handler handler[2][4];
};

/* Where operands come from, in the letters of the Intel SDM (vol. 2, appendix A); `i` = sign-extended byte. */
enum immediate { IMM_NONE, IMM_B, IMM_SB, IMM_W, IMM_Z, IMM_V, IMM_JB, IMM_JZ, IMM_FAR, IMM_OFFSET, IMM_W_B };
enum width { WIDTH_B, WIDTH_V, WIDTH_W, WIDTH_D, WIDTH_Q };

#define FORMS(FORM)                        \
	FORM(none, 0, IMM_NONE, WIDTH_V)   \
	FORM(none_b, 0, IMM_NONE, WIDTH_B) \
	FORM(none_w, 0, IMM_NONE, WIDTH_W) \
	FORM(Eb, 1, IMM_NONE, WIDTH_B)     \
	FORM(Ev, 1, IMM_NONE, WIDTH_V)     \
	FORM(Ew, 1, IMM_NONE, WIDTH_W)     \
	FORM(M, 1, IMM_NONE, WIDTH_V)      \
	FORM(Mb, 1, IMM_NONE, WIDTH_B)     \
	FORM(Mq, 1, IMM_NONE, WIDTH_V)     \
	FORM(Mp, 1, IMM_NONE, WIDTH_V)     \
	FORM(Eb_Gb, 1, IMM_NONE, WIDTH_B)  \
	FORM(Ev_Gv, 1, IMM_NONE, WIDTH_V)  \
	FORM(Gb_Eb, 1, IMM_NONE, WIDTH_B)  \
	FORM(Gv_Ev, 1, IMM_NONE, WIDTH_V)  \
	FORM(Gv_M, 1, IMM_NONE, WIDTH_V)   \
	FORM(Gv_Eb, 1, IMM_NONE, WIDTH_V)  \
	FORM(Gv_Ew, 1, IMM_NONE, WIDTH_V)  \
	FORM(Ev_Sw, 1, IMM_NONE, WIDTH_V)  \
	FORM(Sw_Ew, 1, IMM_NONE, WIDTH_W)  \
	FORM(Rd_Cd, 1, IMM_NONE, WIDTH_D)  \
	FORM(Eb_Ib, 1, IMM_SB, WIDTH_B)    \
	FORM(Ev_Iz, 1, IMM_Z, WIDTH_V)     \
	FORM(Ev_Ib, 1, IMM_SB, WIDTH_V)    \
	FORM(Eb_Ub, 1, IMM_B, WIDTH_B)     \
	FORM(Ev_Ub, 1, IMM_B, WIDTH_V)     \
	FORM(Ev_Gv_Ub, 1, IMM_B, WIDTH_V)  \
	FORM(Gv_Ev_Iz, 1, IMM_Z, WIDTH_V)  \
	FORM(Gv_Ev_Ib, 1, IMM_SB, WIDTH_V) \
	FORM(AL_Ib, 0, IMM_SB, WIDTH_B)    \
	FORM(AX_Iz, 0, IMM_Z, WIDTH_V)     \
	FORM(Zb_Ib, 0, IMM_SB, WIDTH_B)    \
	FORM(Zv_Iv, 0, IMM_V, WIDTH_V)     \
	FORM(Zv, 0, IMM_NONE, WIDTH_V)     \
	FORM(AL_Ob, 0, IMM_OFFSET, WIDTH_B) \
	FORM(AX_Ov, 0, IMM_OFFSET, WIDTH_V) \
	FORM(Ib, 0, IMM_SB, WIDTH_V)       \
	FORM(Iz, 0, IMM_Z, WIDTH_V)        \
	FORM(Iw, 0, IMM_W, WIDTH_V)        \
	FORM(Iw_Ib, 0, IMM_W_B, WIDTH_V)   \
	FORM(Ub, 0, IMM_B, WIDTH_V)        \
	FORM(AL_Ub, 0, IMM_B, WIDTH_B)     \
	FORM(AX_Ub, 0, IMM_B, WIDTH_V)     \
	FORM(Jb, 0, IMM_JB, WIDTH_V)       \
	FORM(Jz, 0, IMM_JZ, WIDTH_V)       \
	FORM(Ap, 0, IMM_FAR, WIDTH_V)

enum form {
#define FORM(name, modrm, immediate, width) FORM_##name,
	FORMS(FORM)
#undef FORM
	FORM_COUNT
};

enum operand_access { ACCESS_none = 0, ACCESS_R = 1, ACCESS_W = 2, ACCESS_RW = 3 };

/* What else a row says. */
enum traits {
	TRAIT_none = 0,
	TRAIT_lock = 1,	      /* LOCK is legal with a memory operand */
	TRAIT_drain = 2,      /* waits for the store buffer: serialising, fence or I/O */
	TRAIT_stores = 4,     /* stores other than to the E operand (stack, strings) */
	TRAIT_memory = 8,     /* #UD with a register operand */
	TRAIT_register = 16,  /* only the register form (mod = 3) */
	TRAIT_xchg = 32,      /* locked by itself when the operand is in memory */
};

struct instruction {
	uint8_t map;	/* 0: one byte, 1: 0F, 2: 0F 38 */
	uint8_t opcode;
	int8_t extension; /* ModRM.reg that selects this row, -1 for any */
	uint8_t form;	/* enum form */
	uint8_t access; /* to the explicit memory operand */
	uint8_t traits;
	const char *mnemonic;
	const struct handlers *handlers;
};

extern const struct instruction instruction_table[];
extern const uint32_t instruction_count;
extern const char *const form_names[FORM_COUNT];

#endif
