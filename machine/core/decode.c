#include "decode.h"

#include <stdlib.h>

#include "access.h"
#include "chain.h"
#include "exec.h"
#include "mmu.h"
#include "pool.h"

struct form_info {
	bool modrm;
	uint8_t immediate;
	uint8_t width;
	uint8_t bytes;
};

static const struct form_info form_table[FORM_COUNT] = {
#define FORM(name, modrm, immediate, width, bytes) {modrm, immediate, width, BYTES_##bytes},
	FORMS(FORM)
#undef FORM
};

const char *const form_names[FORM_COUNT] = {
#define FORM(name, modrm, immediate, width, bytes) #name,
	FORMS(FORM)
#undef FORM
};

void decode_table_init(struct decode_table *table)
{
	*table = (struct decode_table){0};
	for (uint32_t i = 0; i < instruction_count; i++) {
		const struct instruction *insn = &instruction_table[i];
		assert(insn->map < MAP_COUNT && insn->extension < 8);
		for (int wide = 0; wide < 2; wide++) {
			if (insn->traits & (wide ? TRAIT_not64 : TRAIT_only64))
				continue;
			for (int reg = 0; reg < 8; reg++) {
				if (insn->extension >= 0 && reg != insn->extension)
					continue;
				uint16_t *row = &table->row[wide][insn->map][insn->opcode][reg];
				assert(*row == 0);
				*row = (uint16_t)(i + 1);
			}
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

enum rex { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8 };

struct prefixes {
	bool operand_size, address_size, lock, rep, repne;
	uint8_t segment; /* SEGMENT_COUNT: none */
	uint8_t rex;	 /* 0: none; REX without bits is 40h */
};

static bool take_prefix(uint8_t byte, bool wide, struct prefixes *p)
{
	/* In 64-bit code only FS and GS can be chosen. REX counts if the opcode follows at once. */
	if (wide && (byte & 0xf0) == 0x40) {
		p->rex = byte;
		return true;
	}
	p->rex = 0;
	switch (byte) {
	case 0x26: p->segment = wide ? p->segment : ES; return true;
	case 0x2e: p->segment = wide ? p->segment : CS; return true;
	case 0x36: p->segment = wide ? p->segment : SS; return true;
	case 0x3e: p->segment = wide ? p->segment : DS; return true;
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

/* Prefixes up to the first byte of the opcode. */
static bool take_prefixes(struct reader *r, bool wide, struct prefixes *p, uint8_t *opcode)
{
	for (;;) {
		uint64_t byte;
		if (!take(r, 1, &byte))
			return false;
		uint8_t rex = p->rex;
		if (!take_prefix((uint8_t)byte, wide, p)) {
			p->rex = rex;
			*opcode = (uint8_t)byte;
			return true;
		}
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
	op->displacement = displacement;
	return true;
}

static bool decode_address_32(struct reader *r, struct op *op, uint8_t mod, uint8_t rm, uint8_t rex, bool wide, bool *stack)
{
	int64_t displacement = 0;
	uint32_t displacement_size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	bool relative = wide && mod == 0 && rm == 5;
	op->base = rm | (rex & REX_B ? 8 : 0);
	if (rm == 4) {
		uint64_t sib;
		if (!take(r, 1, &sib))
			return false;
		op->scale = (uint8_t)(sib >> 6);
		uint8_t index = (uint8_t)((sib >> 3 & 7) | (rex & REX_X ? 8 : 0));
		op->index = index == 4 ? GPR_ZERO : index;
		rm = sib & 7;
		op->base = rm | (rex & REX_B ? 8 : 0);
	}
	*stack = op->base == RSP || op->base == RBP;
	if (rm == 5 && mod == 0) {
		op->base = relative ? GPR_PAGE : GPR_ZERO;
		*stack = false;
		displacement_size = 4;
	}
	if (displacement_size && !take_signed(r, displacement_size, &displacement))
		return false;
	op->displacement = displacement;
	return true;
}

static bool decode_immediate(struct reader *r, struct op *op, enum immediate kind)
{
	uint64_t raw;
	uint32_t z = op->size < 4 ? op->size : 4; /* "z": 16 or 32 bits */
	switch (kind) {
	case IMM_NONE: return true;
	case IMM_SB:
	case IMM_JB: return take_signed(r, 1, &op->immediate);
	case IMM_Z:
	case IMM_JZ: return take_signed(r, z, &op->immediate);
	case IMM_V: return take_signed(r, op->size, &op->immediate);
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
		op->displacement = (int64_t)raw;
		op->flags |= OP_MEMORY;
		return true;
	}
	return false;
}

static uint32_t operand_size(const struct form_info *form, uint16_t traits, uint32_t bits, const struct prefixes *p)
{
	bool wide = bits == 64;
	switch (form->width) {
	case WIDTH_B: return 1;
	case WIDTH_W: return 2;
	case WIDTH_D: return 4;
	case WIDTH_Q: return 8;
	case WIDTH_Y: return wide && p->rex & REX_W ? 8 : 4;
	case WIDTH_NATIVE: return wide ? 8 : 4;
	default: break;
	}
	if (wide && (traits & TRAIT_force64 || (p->rex & REX_W && !(traits & TRAIT_nowide))))
		return 8;
	if (wide && traits & TRAIT_default64 && !p->operand_size)
		return 8;
	return (bits == 16) != p->operand_size ? 2 : 4;
}

static enum decode_result invalid(const uint8_t *bytes, size_t available, struct op *op)
{
	/* Keep the first bytes for the report; length 1 so that the op covers the byte it was decoded from. */
	uint32_t kept = available < 8 ? (uint32_t)available : 8;
	*op = (struct op){.handler = exec_undefined, .length = 1, .row = ROW_INVALID, .flags = OP_INVALID | OP_SYNCED,
			  .immediate = (int64_t)bytes_load(bytes, kept)};
	return DECODE_INVALID;
}

static enum decode_result too_long(const uint8_t *bytes, size_t available, struct op *op)
{
	invalid(bytes, available, op);
	op->handler = exec_too_long;
	return DECODE_INVALID;
}

/* The opcode map, and the last byte of the opcode. */
static bool take_opcode(struct reader *r, const struct decode_table *table, bool wide, const struct prefixes *p,
			uint8_t first, uint8_t *opcode, uint32_t *map)
{
	uint64_t byte = first;
	*map = MAP_ONE_BYTE;
	if (first == 0x0f) {
		*map = MAP_0F;
		if (!take(r, 1, &byte))
			return false;
		if (byte == 0x38) {
			*map = MAP_0F38;
			if (!take(r, 1, &byte))
				return false;
		}
	}
	*opcode = (uint8_t)byte;
	const uint16_t(*rows)[256][8] = table->row[wide];
	if (*map == MAP_0F && p->rep && rows[MAP_F3_0F][byte][0])
		*map = MAP_F3_0F;
	if (*map == MAP_0F38 && p->repne && rows[MAP_F2_0F38][byte][0])
		*map = MAP_F2_0F38;
	return true;
}

/* Registers of byte instructions: without REX, 4 to 7 are AH, CH, DH and BH. */
static void decode_byte_registers(struct op *op, uint8_t bytes, uint8_t rex, bool memory)
{
	if (rex)
		return;
	bool e = bytes == BYTES_E || bytes == BYTES_EG, g = bytes == BYTES_G || bytes == BYTES_EG || bytes == BYTES_Z;
	if (e && !memory && op->rm >= 4)
		op->rm = (uint8_t)(op->rm - 4 + GPR_HIGH);
	if (g && op->reg >= 4)
		op->reg = (uint8_t)(op->reg - 4 + GPR_HIGH);
}

/* Whether the address is a base and a displacement, as wide as addresses of this code, in a segment that cpu->flat speaks
 * of. Operands on the stack always are. */
static bool address_is_flat(const struct op *op, uint32_t bits)
{
	bool known = op->segment == DS || op->segment == ES || op->segment == SS;
	return bits != 16 && op->address_size * 8 == bits && op->index == GPR_ZERO && known;
}

/* Register numbers that REX reaches and that do not exist: segment and control registers from 8 on, but for CR8. */
static bool operands_exist(const struct instruction *insn, const struct op *op)
{
	bool segment = insn->form == FORM_Ev_Sw || insn->form == FORM_Sw_Ew;
	if (insn->form == FORM_Rd_Cd && op->reg >= 8)
		return op->reg == 8 && (op->opcode == 0x20 || op->opcode == 0x22);
	return !(segment && op->reg >= 8);
}

enum decode_result decode_bytes(const struct decode_table *table, const uint8_t *bytes, size_t available, uint32_t bits,
				struct op *op)
{
	bool limited = available >= INSTRUCTION_SIZE_MAX, wide = bits == 64;
	struct reader r = {bytes, limited ? INSTRUCTION_SIZE_MAX : (uint32_t)available, 0};
	/* Running out of bytes: an error if all 15 were there, else a matter of getting more. */
#define NEED(condition)                                                                     \
	do {                                                                                \
		if (!(condition))                                                           \
			return limited ? too_long(bytes, available, op) : DECODE_SHORT;      \
	} while (0)

	struct prefixes prefix = {.segment = SEGMENT_COUNT};
	uint8_t opcode, first;
	uint32_t map;
	NEED(take_prefixes(&r, wide, &prefix, &first));
	NEED(take_opcode(&r, table, wide, &prefix, first, &opcode, &map));

	/* Rows of one opcode agree on whether there is a ModRM byte, so any of them can tell. */
	const uint16_t *rows = table->row[wide][map][opcode];
	uint16_t row = rows[0], sample = 0;
	for (int reg = 0; reg < 8 && !sample; reg++)
		sample = rows[reg];
	if (!sample)
		return invalid(bytes, available, op);

	uint8_t extend_b = prefix.rex & REX_B ? 8 : 0;
	*op = (struct op){.base = GPR_ZERO, .index = GPR_ZERO, .opcode = opcode, .reg = (uint8_t)((opcode & 7) | extend_b)};
	op->address_size = wide ? (prefix.address_size ? 4 : 8) : (bits == 16) != prefix.address_size ? 2 : 4;
	op->address_mask = size_mask(op->address_size);
	op->flags = (prefix.rep ? OP_REP : 0) | (prefix.repne ? OP_REPNE : 0);

	bool stack = false;
	uint8_t mod = 3;
	if (form_table[instruction_table[sample - 1].form].modrm) {
		uint64_t modrm;
		NEED(take(&r, 1, &modrm));
		mod = (uint8_t)(modrm >> 6);
		uint8_t reg = modrm >> 3 & 7, rm = modrm & 7;
		row = rows[reg];
		if (!row)
			return invalid(bytes, available, op);
		op->reg = (uint8_t)(reg | (prefix.rex & REX_R ? 8 : 0));
		op->rm = rm | extend_b;
		if (instruction_table[row - 1].form == FORM_Rd_Cd)
			mod = 3; /* MOV to and from control registers ignores mod */
		if (mod != 3) {
			op->flags |= OP_MEMORY;
			NEED(op->address_size == 2 ? decode_address_16(&r, op, mod, rm, &stack)
						   : decode_address_32(&r, op, mod, rm, prefix.rex, wide, &stack));
		}
	}
	const struct instruction *insn = &instruction_table[row - 1];
	const struct form_info *form = &form_table[insn->form];
	op->row = (uint16_t)(row - 1);
	op->size = (uint8_t)operand_size(form, insn->traits, bits, &prefix);
	op->segment = prefix.segment != SEGMENT_COUNT ? prefix.segment : stack ? SS : DS;
	NEED(decode_immediate(&r, op, form->immediate));
#undef NEED
	op->length = (uint8_t)r.at;

	bool memory = op->flags & OP_MEMORY;
	decode_byte_registers(op, form->bytes, prefix.rex, memory);
	if ((insn->traits & TRAIT_memory && !memory) || (insn->traits & TRAIT_register && memory))
		return invalid(bytes, available, op);
	if (prefix.lock && !(insn->traits & TRAIT_lock && memory))
		return invalid(bytes, available, op);
	if (!operands_exist(insn, op))
		return invalid(bytes, available, op);
	const struct handlers *handlers = insn->handlers;
	uint32_t width = (uint32_t)__builtin_ctz(op->size);
	bool two_places = insn->traits & TRAIT_stores && memory;
	const op_handler(*best)[4] = handlers->handler;
	if (handlers->direct && !two_places)
		best = address_is_flat(op, bits) ? handlers->flat->handler : handlers->direct->handler;
	op->handler = best[memory][width];
	if (handlers->synced)
		op->flags |= OP_SYNCED;
	if (prefix.lock || (insn->traits & TRAIT_xchg && memory)) {
		op->inner = handlers->handler[memory][width];
		op->handler = exec_locked;
		op->flags |= OP_LOCK | OP_DRAIN | OP_SYNCED;
	}
	/* SWAPGS and RDTSCP, the register forms of INVLPG's row, and MOV to CR8 do not serialise (SDM vol. 3, 8.3). */
	bool serialises = insn->form == FORM_Mb ? memory : insn->form != FORM_Rd_Cd || op->reg != 8;
	if (insn->traits & TRAIT_drain && serialises)
		op->flags |= OP_DRAIN;
	bool pops_register = insn->traits & TRAIT_stores && insn->access == ACCESS_W && !memory;
	if ((insn->traits & TRAIT_stores && !pops_register) || (memory && insn->access & ACCESS_W))
		op->flags |= OP_STORES;
	if (!(op->flags & OP_SYNCED) || (insn->traits & TRAIT_partial))
		op->flags |= OP_PARTIAL;
	/* Stores that come first and alone can be refused as they are tried; all else must be known before. */
	bool store_comes_first = !(op->flags & OP_SYNCED) && !two_places;
	if (op->flags & OP_DRAIN || (op->flags & OP_STORES && !store_comes_first))
		op->flags |= OP_WAITS;
	return DECODE_OK;
}

struct decode_cache *decode_cache_create(uint32_t page_count)
{
	struct decode_cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return NULL;
	decode_table_init(&cache->table);
	cache->op_count = 1;
	cache->ops = aligned_alloc(sizeof(struct op), OP_POOL_COUNT * sizeof(struct op));
	cache->page_number = calloc(page_count, sizeof(cache->page_number[0]));
	cache->pages[0] = calloc(1, sizeof(struct code_page));
	if (cache->ops && cache->page_number && cache->pages[0])
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
		struct code_page *page = cache->pages[i];
		cache->page_number[page->frame] = 0;
		m->memory.flags[page->frame] &= (uint8_t)~PAGE_CODE;
		*page = (struct code_page){0};
	}
	cache->page_count = 0;
	cache->op_count = 1;
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fetch_flush(&m->cpus[i]);
}

static struct code_page *code_page_find(const struct decode_cache *cache, uint32_t frame, uint32_t bits)
{
	for (uint32_t number = cache->page_number[frame]; number; number = cache->pages[number - 1]->next)
		if (cache->pages[number - 1]->bits == bits)
			return cache->pages[number - 1];
	return NULL;
}

/* The code page of a frame for code of this size. */
static struct code_page *code_page_get(struct machine *m, uint32_t frame, uint32_t bits)
{
	struct decode_cache *cache = m->code;
	struct code_page *page = code_page_find(cache, frame, bits);
	if (page)
		return page;
	if (cache->page_count < CODE_PAGE_MAX && !cache->pages[cache->page_count])
		cache->pages[cache->page_count] = calloc(1, sizeof(struct code_page));
	/* No room, or no memory: start again. The first page exists always. */
	if (cache->page_count == CODE_PAGE_MAX || !cache->pages[cache->page_count])
		flush_all(m);
	page = cache->pages[cache->page_count++];
	page->frame = frame;
	page->bits = (uint8_t)bits;
	page->next = cache->page_number[frame];
	cache->page_number[frame] = (uint16_t)cache->page_count;
	m->memory.flags[frame] |= PAGE_CODE;
	/* Stores to this page have to be watched from now on. */
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		fast_forbid_writes(&m->cpus[i]);
		m->cpus[i].stores_in_code = m->cpus[i].s.store_count != 0;
	}
	return page;
}

/* Puts the op where it belongs in its page. */
static void place(struct op *op, uint32_t offset, uint32_t number)
{
	op->offset = (uint16_t)offset;
	op->number = (uint8_t)number;
	if (op->flags & OP_MEMORY && op->base == GPR_PAGE)
		op->displacement += offset + op->length;
}

static void place_end(struct op *op, uint32_t offset, uint32_t number)
{
	*op = (struct op){.handler = exec_end, .offset = (uint16_t)offset, .number = (uint8_t)number, .row = ROW_END};
}

static bool ends_block(const struct op *op)
{
	/* JMP, RET and indirect jumps and calls: what follows is not their business. */
	return op->flags & OP_SYNCED || instruction_table[op->row].traits & TRAIT_ends;
}

static void cover(struct code_page *page, uint32_t offset, uint32_t size)
{
	for (uint32_t i = offset; i < offset + size && i < PAGE_SIZE; i++)
		page->covered[i / 64] |= UINT64_C(1) << i % 64;
}

/* Decodes instructions from `offset` on, up to one that ends the block, one that is decoded already, or the end of the
 * page. False if not even the first is complete within the page. */
static bool decode_block(struct machine *m, struct code_page *page, uint32_t offset)
{
	struct decode_cache *cache = m->code;
	const uint8_t *bytes = m->memory.ram + (uint64_t)page->frame * PAGE_SIZE;
	struct op *block = &cache->ops[cache->op_count];
	uint32_t count = 0, at = offset;
	while (count < BLOCK_INSTRUCTION_MAX && at < PAGE_SIZE && !page->slot[at]) {
		struct op *op = &block[count];
		enum decode_result result = decode_bytes(&cache->table, bytes + at, PAGE_SIZE - at, page->bits, op);
		if (result == DECODE_SHORT || (count && op->flags & OP_WAITS))
			break;
		place(op, at, count);
		page->slot[at] = cache->op_count + count;
		cover(page, at, result == DECODE_INVALID ? INSTRUCTION_SIZE_MAX : op->length);
		at += op->length;
		count++;
		if (ends_block(op))
			break;
	}
	if (!count)
		return false;
	for (uint32_t i = 0; i < count; i++)
		block[i].left = (uint8_t)(count - i);
	place_end(&block[count], at, count);
	cache->op_count += count + 1;
	return true;
}

static void unlink_from(struct op *op, const struct op *first, const struct op *end)
{
	if (!(op->flags & OP_LOCK) && op->link >= first && op->link < end)
		op->link = NULL;
}

/* Branches of the page and ends of its blocks no longer lead to [first, end). */
static void unlink_block(struct machine *m, const struct code_page *page, const struct op *first, const struct op *end)
{
	for (uint32_t i = 0; i < PAGE_SIZE; i++) {
		if (!page->slot[i])
			continue;
		struct op *op = &m->code->ops[page->slot[i]];
		unlink_from(op, first, end);
		if (op[1].row == ROW_END)
			unlink_from(op + 1, first, end);
	}
}

/* Forgets the block that `op` belongs to. Whoever is still on the way through it finds exec_stale. */
static void forget_block(struct machine *m, struct code_page *page, struct op *op, bool whole_page)
{
	const struct op *first = op -= op->number;
	for (; op->row != ROW_END; op++) {
		page->slot[op->offset] = 0;
		if (op == m->broken)
			m->broken_handler = exec_stale;
		op->handler = exec_stale;
	}
	if (!whole_page) /* else nothing is left that leads anywhere */
		unlink_block(m, page, first, op);
}

static void invalidate_in(struct machine *m, struct code_page *page, uint32_t first, uint32_t end)
{
	bool hit = false;
	for (uint32_t i = first; i < end && !hit; i++)
		hit = page->covered[i / 64] >> i % 64 & 1;
	if (!hit)
		return;
	uint32_t from = first > INSTRUCTION_SIZE_MAX - 1 ? first - (INSTRUCTION_SIZE_MAX - 1) : 0;
	for (uint32_t i = from; i < end; i++)
		if (page->slot[i])
			forget_block(m, page, &m->code->ops[page->slot[i]], end - first == PAGE_SIZE);
}

void decode_invalidate(struct machine *m, uint64_t phys, uint32_t size)
{
	struct decode_cache *cache = m->code;
	uint32_t first = (uint32_t)phys & (PAGE_SIZE - 1);
	for (uint32_t number = cache->page_number[phys >> PAGE_SHIFT]; number; number = cache->pages[number - 1]->next)
		invalidate_in(m, cache->pages[number - 1], first, first + size);
}

/* Decodes the instruction in `bytes` without caching it. `offset` is that in its page. */
static const struct op *decode_alone(struct machine *m, const uint8_t *bytes, size_t available, uint32_t bits, uint32_t offset)
{
	struct op *op = &m->code->straddling[0];
	if (decode_bytes(&m->code->table, bytes, available, bits, op) == DECODE_SHORT)
		return NULL;
	place(op, offset, 0);
	op->left = 1;
	place_end(op + 1, offset + op->length, 1);
	return op;
}

/* An instruction that crosses into the next page: fetch both parts, decode, do not cache. */
static const struct op *decode_straddling(struct cpu *c, uint64_t addr, uint64_t phys, bool effects)
{
	struct machine *m = c->machine;
	uint8_t bytes[INSTRUCTION_SIZE_MAX];
	uint32_t first = PAGE_SIZE - (uint32_t)(addr & (PAGE_SIZE - 1));
	assert(first < INSTRUCTION_SIZE_MAX);
	uint64_t next = (addr + first) & c->linear_mask, next_phys;
	if (effects) {
		if (c->bits == 64 && !address_canonical(next)) {
			c->fault = (struct fault){.vector = VECTOR_GP, .has_error = true};
			return NULL;
		}
		if (mmu_translate(c, next, ACCESS_FETCH, cpu_privilege(c) == 3, &next_phys) != STATUS_OK)
			return NULL;
	} else if (!mmu_peek_cached(c, next, &next_phys)) {
		return NULL;
	}
	memcpy(bytes, m->memory.ram + phys, first);
	if (memory_contains(&m->memory, next_phys, INSTRUCTION_SIZE_MAX)) {
		code_page_get(m, (uint32_t)(next_phys >> PAGE_SHIFT), c->bits); /* stores to it are watched */
		memcpy(bytes + first, m->memory.ram + next_phys, INSTRUCTION_SIZE_MAX - first);
	} else {
		memset(bytes + first, 0xff, INSTRUCTION_SIZE_MAX - first);
	}
	return decode_alone(m, bytes, sizeof(bytes), c->bits, (uint32_t)(addr & (PAGE_SIZE - 1)));
}

static const struct op *decode_physical(struct cpu *c, uint64_t addr, uint64_t phys, bool effects)
{
	struct machine *m = c->machine;
	struct decode_cache *cache = m->code;
	uint32_t offset = (uint32_t)(addr & (PAGE_SIZE - 1));
	if (!memory_contains(&m->memory, phys & ~(uint64_t)(PAGE_SIZE - 1), PAGE_SIZE)) {
		static const uint8_t nothing[INSTRUCTION_SIZE_MAX] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
								      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
		return decode_alone(m, nothing, sizeof(nothing), c->bits, offset);
	}
	if (cache->op_count + BLOCK_INSTRUCTION_MAX + 1 > OP_POOL_COUNT)
		flush_all(m);
	struct code_page *page = code_page_get(m, (uint32_t)(phys >> PAGE_SHIFT), c->bits);
	if (!page->slot[offset] && !decode_block(m, page, offset))
		return decode_straddling(c, addr, phys, effects);
	/* Within a page that the code segment covers whole, nothing is left to check, not even where jumps go that stay in it. */
	bool covered = c->s.rip >= offset && c->s.rip + (PAGE_SIZE - 1 - offset) <= c->code_limit;
	if (effects && (c->bits == 64 || covered) && !pool_freed(m, phys)) {
		uint32_t slot = addr >> PAGE_SHIFT & (FETCH_SLOTS - 1);
		c->fetch_tag[slot] = addr - offset;
		c->fetch_code[slot] = page;
	}
	return &cache->ops[page->slot[offset]];
}

static const struct op *fetch_fault(struct cpu *c)
{
	c->fault = (struct fault){.vector = VECTOR_GP, .has_error = true};
	return NULL;
}

const struct op *decode_fetch(struct cpu *c)
{
	uint64_t addr = (c->view[CS].base + c->s.rip) & c->linear_mask, phys;
	if (c->s.rip > c->code_limit || (c->bits == 64 && !address_canonical(addr)))
		return fetch_fault(c);
	if (mmu_translate(c, addr, ACCESS_FETCH, cpu_privilege(c) == 3, &phys) != STATUS_OK)
		return NULL;
	const struct op *op = decode_physical(c, addr, phys, true);
	if (op && c->bits != 64 && c->s.rip + op->length - 1 > c->code_limit)
		return fetch_fault(c);
	return op;
}

const struct op *decode_peek(struct cpu *c)
{
	uint64_t addr = (c->view[CS].base + c->s.rip) & c->linear_mask, phys;
	if (c->s.rip > c->code_limit || !mmu_peek_cached(c, addr, &phys))
		return NULL;
	return decode_physical(c, addr, phys, false);
}
