/* libFuzzer over the core's C interface: random code, page tables, descriptor tables, registers and plans.
 *
 * An input is a program for a small machine that already has working tables (so that inputs get somewhere): first what
 * to change of them, then a plan, then machine code. Besides the sanitizers it checks what the machine promises: a run
 * ends within its steps, is the same when repeated, and its exact choices replay to the same state. With some options agents
 * choose, and a systematic search goes on from where the run ends.
 *
 * input:  mode, options, patches, registers, records: a byte each
 *         patches x (place, offset 2, size), followed by `size` % 17 bytes
 *         registers x (which, cpu and kind, value 2)
 *         records x (op, cpu and flags, argument 2)
 *         the rest is code
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "execute.h"
#include "explore.h"
#include "memory.h"
#include "registers.h"
#include "saved_state.h"
#include "snapshot.h"
#include "tap.h"
#include "visible.h"

enum {
	RAM_SIZE = 1 << 20,
	GDT = 0x1000, IDT = 0x2000, IDT_LONG = 0x3000, TSS = 0x4000, STUBS = 0x5000,
	TABLES_2 = 0x8000, TABLES_PAE = 0xa000, TABLES_4 = 0xd000, /* in each: the root first */
	CODE = 0x10000, DATA = 0x20000, STACKS = 0x30000,
	PLAN_MAX = 24, STEPS_MAX = 1500, LOG_MAX = 1 << 16,
	MODE_COUNT = 6,
};

static const uint32_t places[] = {CODE, GDT, IDT, IDT_LONG, TSS, STUBS, TABLES_2, TABLES_PAE, TABLES_4, DATA, STACKS, CODE};
static const uint64_t corners[] = {
	0, 1, DATA, DATA + 0xffe, CODE, GDT, STACKS + 0xf00, 0xfee00000, 0xfee00300, 0xffffffff, 0x7fffffff, 0x80000000,
	0xffffffffffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0x0000800000000000, 0x00007ffffffffffe, 0xc0000080,
	0x100000 - 2, 0x40000000,
};

/* Machines of one and two CPUs in every mode, made once; each run starts from its snapshot. */
static struct {
	struct machine *machine;
	struct snapshot *start;
} ready[2][MODE_COUNT];

static void put(struct machine *m, uint64_t phys, uint64_t value, uint32_t size)
{
	memory_write(m, phys, &value, size);
}

static void set(struct machine *m, uint32_t cpu, const char *name, uint64_t value)
{
	const struct register_row *row = register_find(name);
	if (!row || !register_set(&m->cpus[cpu], row, value))
		abort();
}

static void write_descriptors(struct machine *m)
{
	static const uint64_t gdt[] = {
		0, 0x00cf9b000000ffff, 0x00cf9b000000ffff, 0x00cf93000000ffff, /* 0x10 code, 0x18 data */
		0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, /* user: 0x23 code, 0x2b data, 0x33 64-bit code */
		0x00af9b000000ffff, 0x00009b000000ffff, 0x000093000000ffff, /* 0x38 64-bit, 0x40 and 0x48 16-bit */
		0x0000890040000067, 0, /* 0x50 TSS */
		0x0000ec0000102000, 0, 0x00cf96000000ffff, 0x00cf9e000000ffff, /* gates and odd segments */
	};
	memory_write(m, GDT, gdt, sizeof(gdt));
	put(m, TSS + 4, STACKS + 0x800, 8); /* ESP0 and, for long mode, RSP0 */
	put(m, TSS + 8, 0x18, 4);
	/* Handlers: drop an error code or not, step over two bytes of code, return. */
	static const uint8_t plain_32[] = {0x83, 0x04, 0x24, 0x02, 0xcf}, coded_32[] = {0x83, 0xc4, 0x04, 0x83, 0x04, 0x24, 2, 0xcf};
	static const uint8_t plain_64[] = {0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf};
	static const uint8_t coded_64[] = {0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xcf};
	memory_write(m, STUBS, plain_32, sizeof(plain_32));
	memory_write(m, STUBS + 0x20, coded_32, sizeof(coded_32));
	memory_write(m, STUBS + 0x40, plain_64, sizeof(plain_64));
	memory_write(m, STUBS + 0x60, coded_64, sizeof(coded_64));
	for (uint32_t vector = 0; vector < 256; vector++) {
		uint64_t coded = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 ? 0x20 : 0;
		uint64_t user = vector >= 0x30 ? 0x6000 : 0;
		put(m, IDT + vector * 8, (STUBS + coded) | 0x10 << 16 | (UINT64_C(0x8e00) | user) << 32, 8);
		if (vector < 256)
			put(m, IDT_LONG + vector * 16, (STUBS + 0x40 + coded) | 0x38 << 16 | (UINT64_C(0x8e00) | user) << 32, 8);
	}
}

/* Everything at its own address, 4 KB pages for the first MB (user may write), large ones beyond. */
static void write_tables(struct machine *m)
{
	for (uint64_t page = 0; page < 256; page++) {
		put(m, TABLES_2 + 0x1000 + page * 4, page << 12 | 7, 4);
		put(m, TABLES_PAE + 0x2000 + page * 8, page << 12 | 7, 8);
	}
	put(m, TABLES_2, (TABLES_2 + 0x1000) | 7, 4);
	put(m, TABLES_2 + 4, 0x83, 4);
	put(m, TABLES_2 + 4 * 0x3fb, 0xfec00083, 4); /* the APIC */
	for (uint64_t i = 0; i < 4; i++)
		put(m, TABLES_PAE + i * 8, (TABLES_PAE + 0x1000) | 1, 8);
	put(m, TABLES_PAE + 0x1000, (TABLES_PAE + 0x2000) | 7, 8);
	put(m, TABLES_PAE + 0x1008, 0x83, 8);
	put(m, TABLES_PAE + 0x1000 + 8 * 0x1f7, 0xfee00083, 8);
	put(m, TABLES_4, (TABLES_4 + 0x1000) | 7, 8);
	put(m, TABLES_4 + 8 * 511, (TABLES_4 + 0x1000) | 7, 8);
	put(m, TABLES_4 + 0x1000, (TABLES_PAE + 0x1000) | 7, 8);
	put(m, TABLES_4 + 0x1008, 0x87, 8);
	put(m, TABLES_4 + 0x1018, (TABLES_PAE + 0x1000) | 7, 8);
}

static void enter_mode(struct machine *m, uint32_t cpu, uint32_t mode)
{
	static const struct {
		uint64_t cr3, cr4, cr0;
		uint32_t bits;
	} modes[MODE_COUNT] = {
		{0, 0, 0x11, 32}, {0, 0, 0x11, 16}, {TABLES_2, 0x90, 0x80010011, 32}, {TABLES_PAE, 0xb0, 0x80010011, 32},
		{TABLES_4, 0xb0, 0x80010011, 64}, {TABLES_4, 0xb0, 0x80010011, 64},
	};
	set(m, cpu, "gdt_base", GDT);
	set(m, cpu, "gdt_limit", 0x7f);
	set(m, cpu, "idt_base", modes[mode].bits == 64 ? IDT_LONG : IDT);
	set(m, cpu, "idt_limit", 0xfff);
	set(m, cpu, "rsp", STACKS + 0x1000 * cpu + 0xf00);
	set(m, cpu, "rip", CODE + 0x400 * cpu);
	set(m, cpu, "cr3", modes[mode].cr3);
	set(m, cpu, "cr4", modes[mode].cr4);
	if (!register_set_bits(&m->cpus[cpu], modes[mode].bits))
		abort();
	set(m, cpu, "cr0", modes[mode].cr0);
	if (mode == MODE_COUNT - 1) { /* user code */
		set(m, cpu, "cs", 0x33);
		set(m, cpu, "ss", 0x2b);
		if (!register_set_bits(&m->cpus[cpu], 64))
			abort();
	}
}

static void prepare(uint32_t cpus, uint32_t mode)
{
	struct machine *m = machine_create(cpus + 1, RAM_SIZE, 4);
	if (!m)
		abort();
	write_descriptors(m);
	write_tables(m);
	for (uint32_t cpu = 0; cpu <= cpus; cpu++) {
		m->cpus[cpu].s.waiting = 0;
		enter_mode(m, cpu, mode);
	}
	tap_switch(&m->tap, true);
	ready[cpus][mode].machine = m;
	ready[cpus][mode].start = snapshot_take(m);
	if (!ready[cpus][mode].start)
		abort();
}

struct input {
	const uint8_t *at;
	size_t left;
};

static uint32_t take(struct input *in, uint32_t size)
{
	uint32_t value = 0;
	if (in->left < size) {
		in->left = 0;
		return 0;
	}
	memcpy(&value, in->at, size);
	in->at += size;
	in->left -= size;
	return value;
}

static void patch(struct machine *m, struct input *in)
{
	uint64_t at = places[take(in, 1) % (sizeof(places) / sizeof(places[0]))] + take(in, 2) % 0x3000;
	uint32_t size = take(in, 1) % 17;
	if (in->left < size)
		return;
	memory_write(m, at, in->at, size);
	in->at += size;
	in->left -= size;
}

static void change_register(struct machine *m, struct input *in)
{
	const struct register_row *row = &register_table[take(in, 1) % register_count];
	uint32_t how = take(in, 1), raw = take(in, 2);
	uint64_t value = how & 0x40 ? corners[raw % (sizeof(corners) / sizeof(corners[0]))] : raw;
	if (how & 0x20)
		value = (uint64_t)raw << (how & 0x1f);
	struct cpu *c = &m->cpus[(how >> 7) % m->cpu_count];
	if (row->set)
		row->set(c, row->which, value);
}

static struct plan_record record(struct machine *m, struct input *in)
{
	struct plan_record r = {.op = (uint8_t)(1 + take(in, 1) % PLAN_STEP)};
	uint32_t how = take(in, 1), raw = take(in, 2);
	r.cpu = how & 1 ? (uint8_t)(how >> 4) : (uint8_t)((how >> 1) % m->cpu_count);
	r.flags = how >> 2 & 1 ? (how >> 3 & 1 ? PLAN_HOLD | PLAN_ROOM : PLAN_HOLD) : how >> 3 & 1 ? (uint16_t)raw : 0;
	r.arg = plan_counts_steps(&r) ? raw % 1000 : how & 0x80 ? (uint64_t)raw << 12 : raw;
	return r;
}

/* Runs to the end of the plan or of the steps. Every call gets further, or stops for good. */
static enum stop run(struct machine *m, const struct plan_record *plan, uint64_t count, bool exact)
{
	struct plan_cursor cursor = {0, 0};
	for (;;) {
		uint64_t before = m->step, index = cursor.index;
		enum stop stop = plan_execute(m, plan, count, &cursor, STEPS_MAX, exact);
		if (m->step > STEPS_MAX || cursor.index > count || m->choices.failed)
			abort();
		if (stop != STOP_events)
			return stop;
		if (m->step == before && cursor.index == index && tap_count(&m->tap) == 0)
			abort(); /* a full tap without events */
		tap_clear(&m->tap);
	}
}

static struct plan_record log_copy[LOG_MAX];

static void check_replay(struct machine *m, const struct snapshot *start, enum stop end, uint64_t steps, uint64_t hash)
{
	size_t count = m->choices.count;
	if (count > LOG_MAX)
		return;
	if (count)
		memcpy(log_copy, m->choices.records, count * sizeof(log_copy[0]));
	snapshot_restore(m, start);
	tap_clear(&m->tap);
	m->choices.count = 0;
	tap_switch(&m->tap, false); /* watching changes nothing */
	enum stop stop = run(m, log_copy, count, true);
	tap_switch(&m->tap, true);
	bool ended = stop != STOP_diverged && stop != STOP_blocked;
	if (!ended || m->step != steps || machine_state_hash(m) != hash) {
		fprintf(stderr, "replay of %zu choices: stop %d after %d, step %llu of %llu\n", count, stop, end,
			(unsigned long long)m->step, (unsigned long long)steps);
		abort();
	}
}

/* Every other word of RAM above the code. */
static const uint8_t *shared_words(const struct machine *m)
{
	static uint8_t words[RAM_SIZE / 32];
	assert(sizeof(words) == m->memory.size_bytes / 32);
	memset(words, 0x55, sizeof(words));
	memset(words, 0, (CODE + 0x8000) / 32 < sizeof(words) ? (CODE + 0x8000) / 32 : sizeof(words));
	return words;
}

/* A few runs of a systematic search from wherever the machine stands. */
static void search(struct machine *m, uint32_t options)
{
	tap_switch(&m->tap, false);
	struct explore_options how = {.mode = options & 32 ? EXPLORE_BOUNDED : EXPLORE_DPOR, .eager = options & 64, .bound = 2,
				      .ticks = 1, .frames_max = 40, .step_max = m->step + STEPS_MAX};
	struct explorer *e = explorer_create(m, &how);
	enum stop stop;
	for (int runs = 0; e && runs < 8 && explorer_next(e, &stop) == EXPLORE_RUN; runs++) {
		uint64_t hash = machine_state_hash(m), step = m->step;
		if (explorer_repeat(e) != stop && stop != STOP_steps)
			abort();
		if (stop != STOP_steps && (machine_state_hash(m) != hash || m->step != step))
			abort();
	}
	explorer_destroy(e);
	tap_switch(&m->tap, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint32_t mode = take(&in, 1), options = take(&in, 1);
	uint32_t patches = take(&in, 1) % 16, registers = take(&in, 1) % 16, records = take(&in, 1) % PLAN_MAX;
	uint32_t cpus = mode >> 7;
	mode %= MODE_COUNT;
	if (!ready[cpus][mode].machine)
		prepare(cpus, mode);
	struct machine *m = ready[cpus][mode].machine;
	snapshot_restore(m, ready[cpus][mode].start);
	tap_clear(&m->tap);
	m->choices.count = 0;
	m->console.count = 0;
	while (patches--)
		patch(m, &in);
	while (registers--)
		change_register(m, &in);
	for (uint32_t i = 0; i < m->cpu_count; i++)
		cpu_refresh(&m->cpus[i]); /* once, as register_set would after each */
	struct plan_record plan[PLAN_MAX] = {{0}};
	uint64_t count = 0;
	while (records--)
		plan[count++] = record(m, &in);
	if (!count)
		plan[count++] = (struct plan_record){.op = PLAN_AUTO, .arg = 1000};
	memory_write(m, CODE, in.at, in.left < 0x8000 ? in.left : 0x8000);

	/* Agents need to know what is shared, and the tap off. */
	bool agents = options & 8;
	tap_switch(&m->tap, !agents);
	if (agents && !visible_scope(m, SHARED_CPUS) && !visible_set(m, SHARED_CPUS, shared_words(m)))
		return 0;
	struct snapshot *start = (options & 3) == 1 && !agents ? snapshot_take(m) : NULL;
	enum stop end = run(m, plan, count, options & 4);
	uint64_t hash = machine_state_hash(m), steps = m->step;
	tap_switch(&m->tap, true);
	if (agents && options & 16)
		search(m, options);
	if (start) {
		check_replay(m, start, end, steps, hash);
		snapshot_destroy(start);
	}
	return 0;
}
