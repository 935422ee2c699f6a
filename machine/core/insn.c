#include "exec.h"

enum { ANY = -1 };

const struct instruction instruction_table[] = {
#define INSN(map, opcode, extension, mnemonic, form, access, traits, handler) \
	{map, opcode, extension, FORM_##form, ACCESS_##access, (traits), #mnemonic, &handler##_handlers},
#include "insn.def"
#undef INSN
};

const uint32_t instruction_count = sizeof(instruction_table) / sizeof(instruction_table[0]);
