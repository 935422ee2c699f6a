/* A decoded instruction, and the rows of the one instruction table. */
#ifndef RACETAPE_OP_H
#define RACETAPE_OP_H

#include "machine.h"

enum op_flags {
	OP_MEMORY = 1,	/* the E operand is in memory */
	OP_LOCK = 2,	/* LOCK prefix */
	OP_DRAIN = 4,	/* executes only when the CPU's store buffer is empty */
	OP_STORES = 8,	/* may store: executes only when the store buffer is below capacity */
	OP_REP = 16,	/* F3 */
	OP_REPNE = 32,	/* F2 */
	OP_INVALID = 64, /* raises #UD, or #GP if too long */
	OP_SYNCED = 128, /* ends its block: see chain.h */
	OP_PARTIAL = 512, /* a load over the border of a cache line takes two steps */
	OP_WAITS = 256,	 /* begins its block, so that a chain can stop before it: it may have to wait for the store buffer */
};

/* Rows that are none: the end of a block, and an instruction that the table does not have. */
enum { ROW_END = 0xffff, ROW_INVALID = 0xfffe };

/* Handlers of one operation: [E operand in memory][log2 of the operand size].
 *
 * Those of instructions that make one access to memory, or two to the same place, exist three times: general; direct,
 * where the access is a comparison of tags and a host access, so that nothing has to be kept across a call; and flat,
 * where in addition the address is a base and a displacement of the size of the code's addresses in a flat segment
 * (docs/decisions/0013). A direct or flat handler that finds it is not so simple has done nothing yet, and lets the
 * general one do it. */
struct direct_handlers {
	op_handler handler[2][4];
};

struct handlers {
	op_handler handler[2][4];
	bool synced; /* never goes on to the next instruction by itself */
	const struct direct_handlers *direct, *flat; /* both or neither */
};

/* Where operands come from, in the letters of the Intel SDM (vol. 2, appendix A); `i` = sign-extended byte. */
enum immediate { IMM_NONE, IMM_B, IMM_SB, IMM_W, IMM_Z, IMM_V, IMM_JB, IMM_JZ, IMM_FAR, IMM_OFFSET, IMM_W_B };
enum width { WIDTH_B, WIDTH_V, WIDTH_W, WIDTH_D, WIDTH_Q, WIDTH_Y, WIDTH_NATIVE };
/* Which operands are byte registers, among which AH to BH hide. */
enum byte_operands { BYTES_none, BYTES_E, BYTES_G, BYTES_EG, BYTES_Z };

#define FORMS(FORM)                                  \
	FORM(none, 0, IMM_NONE, WIDTH_V, none)       \
	FORM(none_b, 0, IMM_NONE, WIDTH_B, none)     \
	FORM(none_z, 0, IMM_NONE, WIDTH_V, none)     \
	FORM(Eb, 1, IMM_NONE, WIDTH_B, E)            \
	FORM(Ev, 1, IMM_NONE, WIDTH_V, none)         \
	FORM(Ew, 1, IMM_NONE, WIDTH_W, none)         \
	FORM(M, 1, IMM_NONE, WIDTH_V, none)          \
	FORM(Mb, 1, IMM_NONE, WIDTH_B, none)         \
	FORM(Mq, 1, IMM_NONE, WIDTH_V, none)         \
	FORM(Mp, 1, IMM_NONE, WIDTH_V, none)         \
	FORM(Eb_Gb, 1, IMM_NONE, WIDTH_B, EG)        \
	FORM(Ev_Gv, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Ew_Gw, 1, IMM_NONE, WIDTH_W, none)      \
	FORM(Gb_Eb, 1, IMM_NONE, WIDTH_B, EG)        \
	FORM(Gv_Ev, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Gv_M, 1, IMM_NONE, WIDTH_V, none)       \
	FORM(Gv_Mp, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Gv_Ma, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(M_Gv, 1, IMM_NONE, WIDTH_V, none)       \
	FORM(My_Gy, 1, IMM_NONE, WIDTH_Y, none)      \
	FORM(Gv_Eb, 1, IMM_NONE, WIDTH_V, E)         \
	FORM(Gv_Ew, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Gv_Ed, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Gd_Eb, 1, IMM_NONE, WIDTH_B, E)         \
	FORM(Gd_Ev, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Ev_Sw, 1, IMM_NONE, WIDTH_V, none)      \
	FORM(Sw_Ew, 1, IMM_NONE, WIDTH_W, none)      \
	FORM(Rd_Cd, 1, IMM_NONE, WIDTH_NATIVE, none) \
	FORM(Eb_Ib, 1, IMM_SB, WIDTH_B, E)           \
	FORM(Ev_Iz, 1, IMM_Z, WIDTH_V, none)         \
	FORM(Ev_Ib, 1, IMM_SB, WIDTH_V, none)        \
	FORM(Eb_Ub, 1, IMM_B, WIDTH_B, E)            \
	FORM(Ev_Ub, 1, IMM_B, WIDTH_V, none)         \
	FORM(Ev_Gv_Ub, 1, IMM_B, WIDTH_V, none)      \
	FORM(Gv_Ev_Iz, 1, IMM_Z, WIDTH_V, none)      \
	FORM(Gv_Ev_Ib, 1, IMM_SB, WIDTH_V, none)     \
	FORM(AL_Ib, 0, IMM_SB, WIDTH_B, none)        \
	FORM(AX_Iz, 0, IMM_Z, WIDTH_V, none)         \
	FORM(Zb_Ib, 0, IMM_SB, WIDTH_B, Z)           \
	FORM(Zv_Iv, 0, IMM_V, WIDTH_V, none)         \
	FORM(Zv, 0, IMM_NONE, WIDTH_V, none)         \
	FORM(AL_Ob, 0, IMM_OFFSET, WIDTH_B, none)    \
	FORM(AX_Ov, 0, IMM_OFFSET, WIDTH_V, none)    \
	FORM(Ib, 0, IMM_SB, WIDTH_V, none)           \
	FORM(Iz, 0, IMM_Z, WIDTH_V, none)            \
	FORM(Iw, 0, IMM_W, WIDTH_V, none)            \
	FORM(Iw_Ib, 0, IMM_W_B, WIDTH_V, none)       \
	FORM(Ub, 0, IMM_B, WIDTH_V, none)            \
	FORM(AL_Ub, 0, IMM_B, WIDTH_B, none)         \
	FORM(AX_Ub, 0, IMM_B, WIDTH_V, none)         \
	FORM(Jb, 0, IMM_JB, WIDTH_V, none)           \
	FORM(Jz, 0, IMM_JZ, WIDTH_V, none)           \
	FORM(Ap, 0, IMM_FAR, WIDTH_V, none)

enum form {
#define FORM(name, modrm, immediate, width, bytes) FORM_##name,
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
	TRAIT_not64 = 64,     /* #UD in 64-bit code */
	TRAIT_only64 = 128,   /* exists in 64-bit code only */
	TRAIT_default64 = 256, /* 64-bit operands in 64-bit code, or 16-bit with 66 */
	TRAIT_force64 = 512,  /* 64-bit operands in 64-bit code, whatever the prefixes */
	TRAIT_ends = 2048,    /* always goes elsewhere: ends a block */
	TRAIT_partial = 4096, /* OP_PARTIAL, which instructions that do not end a block have anyway */
	TRAIT_nowide = 1024,  /* operands of at most 32 bits */
};

/* Opcodes by what precedes the last opcode byte; the last two are chosen by a prefix that is part of the opcode. */
enum opcode_map { MAP_ONE_BYTE, MAP_0F, MAP_0F38, MAP_F3_0F, MAP_F2_0F38, MAP_COUNT };

struct instruction {
	uint8_t map;	/* enum opcode_map */
	uint8_t opcode;
	int8_t extension; /* ModRM.reg that selects this row, -1 for any */
	uint8_t form;	/* enum form */
	uint8_t access; /* to the explicit memory operand */
	uint16_t traits;
	const char *mnemonic;
	const struct handlers *handlers;
};

extern const struct instruction instruction_table[];

extern const uint32_t instruction_count;
extern const char *const form_names[FORM_COUNT];

ALWAYS_INLINE op_handler op_general_handler(const struct op *op)
{
	return instruction_table[op->row].handlers->handler[!!(op->flags & OP_MEMORY)][__builtin_ctz(op->size)];
}

#endif
