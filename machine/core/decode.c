#include "decode.h"

#include <stdlib.h>

#include "access.h"
#include "exec.h"
#include "mmu.h"
#include "tlb.h"

struct form_info {
	bool modrm;
	uint8_t immediate;
	uint8_t width;
};

static const struct form_info form_table[FORM_COUNT] = {
#define FORM(name, modrm, immediate, width) {modrm, immediate, width},
	FORMS(FORM)
#undef FORM
};

const char *const form_names[FORM_COUNT] = {
#define FORM(name, modrm, immediate, width) #name,
	FORMS(FORM)
#undef FORM
};

void decode_table_init(struct decode_table *table)
{
	*table = (struct decode_table){0};
	for (uint32_t i = 0; i < instruction_count; i++) {
		const struct instruction *insn = &instruction_table[i];
		assert(insn->map < DECODE_MAPS && insn->extension < 8);
		for (int reg = 0; reg < 8; reg++) {
			if (insn->extension >= 0 && reg != insn->extension)
				continue;
			uint16_t *row = &table->row[insn->map][insn->opcode][reg];
			assert(*row == 0);
			*row = (uint16_t)(i + 1);
		}
	}
}

/* A cursor over instruction bytes. */
struct reader {
	const uint8_t *bytes;
	uint32_t available;
	uint32_t at;
};

static bool take(struct reader *r, uint32_t size, uint64_t *ret)
{
	if (r->available - r->at < size)
		return false;
	*ret = bytes_load(r->bytes + r->at, size);
	r->at += size;
	return true;
}

static bool take_signed(struct reader *r, uint32_t size, int64_t *ret)
{
	uint64_t value;
	if (!take(r, size, &value))
		return false;
	uint32_t shift = 64 - size * 8;
	*ret = (int64_t)(value << shift) >> shift;
	return true;
}

struct prefixes {
	bool operand_size, address_size, lock, rep, repne;
	uint8_t segment; /* SEGMENT_COUNT: none */
};

static bool take_prefix(uint8_t byte, struct prefixes *p)
{
	switch (byte) {
	case 0x26: p->segment = ES; return true;
	case 0x2e: p->segment = CS; return true;
	case 0x36: p->segment = SS; return true;
	case 0x3e: p->segment = DS; return true;
	case 0x64: p->segment = FS; return true;
	case 0x65: p->segment = GS; return true;
	case 0x66: p->operand_size = true; return true;
	case 0x67: p->address_size = true; return true;
	case 0xf0: p->lock = true; return true;
	case 0xf2: p->repne = true; p->rep = false; return true;
	case 0xf3: p->rep = true; p->repne = false; return true;
	default: return false;
	}
}

static bool decode_address_16(struct reader *r, struct op *op, uint8_t mod, uint8_t rm, bool *stack)
{
	static const uint8_t base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
	static const uint8_t index[8] = {RSI, RDI, RSI, RDI, GPR_ZERO, GPR_ZERO, GPR_ZERO, GPR_ZERO};
	int64_t displacement = 0;
	op->base = base[rm];
	op->index = index[rm];
	*stack = op->base == RBP;
	if (mod == 0 && rm == 6) {
		op->base = GPR_ZERO;
		*stack = false;
		if (!take_signed(r, 2, &displacement))
			return false;
	} else if (mod == 1 || mod == 2) {
		if (!take_signed(r, mod, &displacement))
			return false;
	}
	op->displacement = (int32_t)displacement;
	return true;
}

static bool decode_address_32(struct reader *r, struct op *op, uint8_t mod, uint8_t rm, bool *stack)
{
	int64_t displacement = 0;
	uint32_t displacement_size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	op->base = rm;
	if (rm == 4) {
		uint64_t sib;
		if (!take(r, 1, &sib))
			return false;
		op->scale = (uint8_t)(sib >> 6);
		op->index = (sib >> 3 & 7) == 4 ? GPR_ZERO : (uint8_t)(sib >> 3 & 7);
		op->base = (uint8_t)(sib & 7);
	}
	if (op->base == RBP && mod == 0) {
		op->base = GPR_ZERO;
		displacement_size = 4;
	}
	*stack = op->base == RSP || op->base == RBP;
	if (displacement_size && !take_signed(r, displacement_size, &displacement))
		return false;
	op->displacement = (int32_t)displacement;
	return true;
}

static bool decode_immediate(struct reader *r, struct op *op, enum immediate kind)
{
	uint64_t raw;
	uint32_t z = op->size == 2 ? 2 : 4; /* "z": 16 or 32 bits */
	if (op->size == 1)
		z = 1;
	switch (kind) {
	case IMM_NONE: return true;
	case IMM_SB:
	case IMM_JB: return take_signed(r, 1, &op->immediate);
	case IMM_Z:
	case IMM_JZ:
	case IMM_V: return take_signed(r, z, &op->immediate);
	case IMM_B:
		if (!take(r, 1, &raw))
			return false;
		op->immediate = (int64_t)raw;
		return true;
	case IMM_W:
		if (!take(r, 2, &raw))
			return false;
		op->immediate = (int64_t)raw;
		return true;
	case IMM_W_B: /* ENTER: frame size in `immediate`, nesting level in `selector` */
		if (!take(r, 2, &raw))
			return false;
		op->immediate = (int64_t)raw;
		if (!take(r, 1, &raw))
			return false;
		op->selector = (uint16_t)raw;
		return true;
	case IMM_FAR:
		if (!take(r, z, &raw))
			return false;
		op->immediate = (int64_t)raw;
		if (!take(r, 2, &raw))
			return false;
		op->selector = (uint16_t)raw;
		return true;
	case IMM_OFFSET:
		if (!take(r, op->address_size, &raw))
			return false;
		op->displacement = (int32_t)raw;
		op->flags |= OP_MEMORY;
		return true;
	}
	return false;
}

static uint32_t width_bytes(uint8_t width, bool operand_16bit)
{
	switch (width) {
	case WIDTH_B: return 1;
	case WIDTH_W: return 2;
	case WIDTH_D: return 4;
	case WIDTH_Q: return 8;
	default: return operand_16bit ? 2 : 4;
	}
}

static enum decode_result invalid(const uint8_t *bytes, size_t available, struct op *op)
{
	/* Keep the first bytes for the report; length 1 so that the op covers the byte it was decoded from. */
	uint32_t kept = available < 8 ? (uint32_t)available : 8;
	*op = (struct op){.handler = exec_undefined, .length = 1, .row = UINT16_MAX,
			  .immediate = (int64_t)bytes_load(bytes, kept)};
	return DECODE_INVALID;
}

static enum decode_result too_long(const uint8_t *bytes, size_t available, struct op *op)
{
	invalid(bytes, available, op);
	op->handler = exec_too_long;
	return DECODE_INVALID;
}

enum decode_result decode_bytes(const struct decode_table *table, const uint8_t *bytes, size_t available,
				bool code_32bit, struct op *op)
{
	bool limited = available >= INSTRUCTION_SIZE_MAX;
	struct reader r = {bytes, limited ? INSTRUCTION_SIZE_MAX : (uint32_t)available, 0};
	/* Running out of bytes: an error if all 15 were there, else a matter of getting more. */
#define NEED(condition)                                                                     \
	do {                                                                                \
		if (!(condition))                                                           \
			return limited ? too_long(bytes, available, op) : DECODE_SHORT;      \
	} while (0)

	struct prefixes prefix = {.segment = SEGMENT_COUNT};
	uint64_t byte;
	do
		NEED(take(&r, 1, &byte));
	while (take_prefix((uint8_t)byte, &prefix));

	uint32_t map = 0;
	if (byte == 0x0f) {
		NEED(take(&r, 1, &byte));
		map = 1;
		if (byte == 0x38) {
			NEED(take(&r, 1, &byte));
			map = 2;
		}
	}
	uint8_t opcode = (uint8_t)byte;
	uint16_t row = table->row[map][opcode][0];
	bool any_row = false;
	for (int reg = 0; reg < 8; reg++)
		any_row |= table->row[map][opcode][reg] != 0;
	if (!any_row)
		return invalid(bytes, available, op);

	*op = (struct op){.base = GPR_ZERO, .index = GPR_ZERO, .opcode = opcode, .reg = opcode & 7, .rm = 0};
	bool operand_16bit = code_32bit == prefix.operand_size;
	op->address_size = code_32bit == prefix.address_size ? 2 : 4;
	op->flags = (prefix.rep ? OP_REP : 0) | (prefix.repne ? OP_REPNE : 0);

	/* Rows of one opcode agree on whether there is a ModRM byte, so any of them can tell. */
	uint16_t sample = row;
	for (int reg = 0; !sample; reg++)
		sample = table->row[map][opcode][reg];
	bool stack = false;
	uint8_t mod = 3;
	if (form_table[instruction_table[sample - 1].form].modrm) {
		uint64_t modrm;
		NEED(take(&r, 1, &modrm));
		mod = (uint8_t)(modrm >> 6);
		op->reg = modrm >> 3 & 7;
		op->rm = modrm & 7;
		row = table->row[map][opcode][op->reg];
		if (!row)
			return invalid(bytes, available, op);
		if (instruction_table[row - 1].form == FORM_Rd_Cd)
			mod = 3; /* MOV to and from control registers ignores mod */
		if (mod != 3) {
			op->flags |= OP_MEMORY;
			NEED(op->address_size == 2 ? decode_address_16(&r, op, mod, op->rm, &stack)
						   : decode_address_32(&r, op, mod, op->rm, &stack));
		}
	}
	const struct instruction *insn = &instruction_table[row - 1];
	const struct form_info *form = &form_table[insn->form];
	op->row = (uint16_t)(row - 1);
	op->size = (uint8_t)width_bytes(form->width, operand_16bit);
	op->segment = prefix.segment != SEGMENT_COUNT ? prefix.segment : stack ? SS : DS;
	NEED(decode_immediate(&r, op, form->immediate));
#undef NEED
	op->length = (uint8_t)r.at;

	bool memory = op->flags & OP_MEMORY;
	if ((insn->traits & TRAIT_memory && !memory) || (insn->traits & TRAIT_register && memory))
		return invalid(bytes, available, op);
	if (prefix.lock && !(insn->traits & TRAIT_lock && memory))
		return invalid(bytes, available, op);
	op->handler = insn->handlers->handler[memory][__builtin_ctz(op->size)];
	if (!op->handler)
		return invalid(bytes, available, op);
	if (prefix.lock || (insn->traits & TRAIT_xchg && memory))
		op->flags |= OP_LOCK | OP_DRAIN;
	if (insn->traits & TRAIT_drain)
		op->flags |= OP_DRAIN;
	if (insn->traits & TRAIT_stores || (memory && insn->access & ACCESS_W))
		op->flags |= OP_STORES;
	return DECODE_OK;
}

struct decode_cache *decode_cache_create(uint32_t page_count)
{
	struct decode_cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return NULL;
	decode_table_init(&cache->table);
	cache->ops = malloc(OP_POOL_COUNT * sizeof(struct op));
	cache->page_number = calloc(page_count, sizeof(cache->page_number[0]));
	if (cache->ops && cache->page_number)
		return cache;
	decode_cache_destroy(cache);
	return NULL;
}

void decode_cache_destroy(struct decode_cache *cache)
{
	if (!cache)
		return;
	for (uint32_t i = 0; i < CODE_PAGE_MAX; i++)
		free(cache->pages[i]);
	free(cache->ops);
	free(cache->page_number);
	free(cache);
}

static void flush_all(struct machine *m)
{
	struct decode_cache *cache = m->code;
	for (uint32_t i = 0; i < cache->page_count; i++) {
		cache->page_number[cache->page_frame[i]] = 0;
		m->memory.flags[cache->page_frame[i]] &= (uint8_t)~PAGE_CODE;
		*cache->pages[i] = (struct code_page){0};
	}
	cache->page_count = 0;
	cache->op_count = 0;
	for (uint32_t i = 0; i < m->cpu_count; i++)
		m->cpus[i].fetch_valid = false;
}

/* The code page of a frame; NULL if memory is short (the instruction is then decoded without caching). */
static struct code_page *code_page_get(struct machine *m, uint32_t frame)
{
	struct decode_cache *cache = m->code;
	if (cache->page_number[frame])
		return cache->pages[cache->page_number[frame] - 1];
	if (cache->page_count == CODE_PAGE_MAX)
		flush_all(m);
	uint32_t number = cache->page_count;
	if (!cache->pages[number])
		cache->pages[number] = calloc(1, sizeof(struct code_page));
	if (!cache->pages[number])
		return NULL;
	cache->page_count++;
	cache->page_number[frame] = (uint16_t)(number + 1);
	cache->page_frame[number] = frame;
	m->memory.flags[frame] |= PAGE_CODE;
	/* Stores to this page have to be watched from now on. */
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fast_forbid_writes(&m->cpus[i]);
	return cache->pages[number];
}

static const struct op *cached(struct machine *m, struct code_page *page, uint64_t phys, bool code_32bit)
{
	struct decode_cache *cache = m->code;
	uint32_t offset = (uint32_t)phys & (PAGE_SIZE - 1);
	if (page->slot[offset])
		return &cache->ops[page->slot[offset] - 1];
	struct op *op = &cache->ops[cache->op_count];
	enum decode_result result =
		decode_bytes(&cache->table, m->memory.ram + phys, PAGE_SIZE - offset, code_32bit, op);
	if (result == DECODE_SHORT)
		return NULL;
	page->slot[offset] = ++cache->op_count;
	uint32_t end = result == DECODE_INVALID ? offset + INSTRUCTION_SIZE_MAX : offset + op->length;
	if (end > PAGE_SIZE)
		end = PAGE_SIZE;
	for (uint32_t i = offset; i < end; i++)
		page->covered[i / 64] |= UINT64_C(1) << i % 64;
	return op;
}

void decode_invalidate(struct machine *m, uint64_t phys, uint32_t size)
{
	struct decode_cache *cache = m->code;
	uint16_t number = cache->page_number[phys >> PAGE_SHIFT];
	if (!number)
		return;
	struct code_page *page = cache->pages[number - 1];
	uint32_t first = (uint32_t)phys & (PAGE_SIZE - 1), end = first + size;
	bool hit = false;
	for (uint32_t i = first; i < end && !hit; i++)
		hit = page->covered[i / 64] >> i % 64 & 1;
	if (!hit)
		return;
	uint32_t from = first > INSTRUCTION_SIZE_MAX - 1 ? first - (INSTRUCTION_SIZE_MAX - 1) : 0;
	for (uint32_t i = from; i < end; i++)
		page->slot[i] = 0;
}

/* An instruction that crosses into the next page: fetch both parts, decode, do not cache. */
static const struct op *decode_straddling(struct cpu *c, uint64_t addr, uint64_t phys, bool effects)
{
	struct machine *m = c->machine;
	uint8_t bytes[INSTRUCTION_SIZE_MAX];
	uint32_t first = PAGE_SIZE - (uint32_t)(addr & (PAGE_SIZE - 1));
	assert(first < INSTRUCTION_SIZE_MAX);
	uint64_t next = (addr + first) & 0xffffffff, next_phys;
	if (effects) {
		if (mmu_translate(c, next, ACCESS_FETCH, cpu_privilege(c) == 3, &next_phys) != STATUS_OK)
			return NULL;
	} else if (!mmu_peek_cached(c, next, &next_phys)) {
		return NULL;
	}
	memcpy(bytes, m->memory.ram + phys, first);
	if (memory_contains(&m->memory, next_phys, INSTRUCTION_SIZE_MAX))
		memcpy(bytes + first, m->memory.ram + next_phys, INSTRUCTION_SIZE_MAX - first);
	else
		memset(bytes + first, 0xff, INSTRUCTION_SIZE_MAX - first);
	decode_bytes(&m->code->table, bytes, sizeof(bytes), c->s.segment[CS].flags & SEGMENT_32BIT, &m->code->straddling);
	return &m->code->straddling;
}

static const struct op *decode_physical(struct cpu *c, uint64_t addr, uint64_t phys, bool effects)
{
	struct machine *m = c->machine;
	bool code_32bit = c->s.segment[CS].flags & SEGMENT_32BIT;
	if (!memory_contains(&m->memory, phys & ~(uint64_t)(PAGE_SIZE - 1), PAGE_SIZE)) {
		static const uint8_t nothing[INSTRUCTION_SIZE_MAX] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
		decode_bytes(&m->code->table, nothing, sizeof(nothing), code_32bit, &m->code->straddling);
		return &m->code->straddling;
	}
	if (m->code->op_count == OP_POOL_COUNT)
		flush_all(m);
	struct code_page *page = code_page_get(m, (uint32_t)(phys >> PAGE_SHIFT));
	/* The cache keeps one decoding per byte; it is that of 32-bit code, the only kind so far. */
	const struct op *op = page && code_32bit ? cached(m, page, phys, code_32bit) : NULL;
	if (!op) {
		uint32_t left = PAGE_SIZE - (uint32_t)(phys & (PAGE_SIZE - 1));
		if (decode_bytes(&m->code->table, m->memory.ram + phys, left, code_32bit, &m->code->straddling) != DECODE_SHORT)
			return &m->code->straddling;
		return decode_straddling(c, addr, phys, effects);
	}
	/* Within a page that the code segment covers whole, nothing is left to check. */
	if (effects && c->s.rip + (PAGE_SIZE - 1 - (addr & (PAGE_SIZE - 1))) <= c->s.segment[CS].limit) {
		c->fetch_valid = true;
		c->fetch_code = page;
		c->fetch_page_rip = c->s.rip - (addr & (PAGE_SIZE - 1));
	}
	return op;
}

const struct op *decode_fetch(struct cpu *c)
{
	uint64_t addr = (c->s.segment[CS].base + c->s.rip) & 0xffffffff, phys;
	if (c->s.rip > c->s.segment[CS].limit) {
		c->fault = (struct fault){.vector = VECTOR_GP, .has_error = true};
		return NULL;
	}
	if (mmu_translate(c, addr, ACCESS_FETCH, cpu_privilege(c) == 3, &phys) != STATUS_OK)
		return NULL;
	const struct op *op = decode_physical(c, addr, phys, true);
	if (op && c->s.rip + op->length - 1 > c->s.segment[CS].limit) {
		c->fault = (struct fault){.vector = VECTOR_GP, .has_error = true};
		return NULL;
	}
	return op;
}

const struct op *decode_peek(struct cpu *c)
{
	uint64_t addr = (c->s.segment[CS].base + c->s.rip) & 0xffffffff, phys;
	if (c->s.rip > c->s.segment[CS].limit || !mmu_peek_cached(c, addr, &phys))
		return NULL;
	return decode_physical(c, addr, phys, false);
}
