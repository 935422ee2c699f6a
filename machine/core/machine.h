/* The whole machine in one struct.
 *
 * Sections: what is architectural state (saved, hashed) comes first, in `struct cpu_state` and `struct platform_state`;
 * everything derived from it (fast translation cache, decoded code, event tap) is never saved and may be dropped at any
 * moment without changing what the guest sees. Both saved structs hold fixed-width fields without padding, so that
 * they can be copied and hashed as bytes; the static asserts at the end keep it so.
 */
#ifndef RACETAPE_MACHINE_H
#define RACETAPE_MACHINE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
	CPU_MAX = 8,
	PAGE_SHIFT = 12,
	PAGE_SIZE = 1 << PAGE_SHIFT,
	CACHE_LINE_SIZE = 64,
	STORE_BUFFER_MAX = 56,
	/* Room behind the configured capacity: an instruction starts only below capacity, and then makes at most 36
	 * stores (ENTER with 32 pushes over four lines); the frame of a fault on top of that makes its own room. */
	STORE_BUFFER_SLOTS = STORE_BUFFER_MAX + 40,
	TLB_SMALL_SLOTS = 512,
	TLB_LARGE_SLOTS = 64,
	FAST_SLOTS = 256,
	EVENTS_PER_STEP_MAX = 512,
	GPR_ZERO = 16, /* index of the register that is always 0: base or index "none" of an effective address */
};

#define APIC_BASE UINT64_C(0xFEE00000)

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum segment { ES, CS, SS, DS, FS, GS, SEGMENT_COUNT };

enum eflags {
	FLAG_CF = 1 << 0,
	FLAG_ONE = 1 << 1, /* reserved, always set */
	FLAG_PF = 1 << 2,
	FLAG_AF = 1 << 4,
	FLAG_ZF = 1 << 6,
	FLAG_SF = 1 << 7,
	FLAG_TF = 1 << 8,
	FLAG_IF = 1 << 9,
	FLAG_DF = 1 << 10,
	FLAG_OF = 1 << 11,
	FLAG_IOPL = 3 << 12,
	FLAG_NT = 1 << 14,
	FLAG_RF = 1 << 16,
	FLAG_VM = 1 << 17,
	FLAG_AC = 1 << 18,
	FLAG_VIF = 1 << 19,
	FLAG_VIP = 1 << 20,
	FLAG_ID = 1 << 21,
	FLAGS_ARITHMETIC = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

enum control_bits {
	CR0_PE = 1 << 0,
	CR0_ET = 1 << 4,
	CR0_WP = 1 << 16,
	CR4_PSE = 1 << 4,
	CR4_PAE = 1 << 5,
	CR4_PGE = 1 << 7,
};
#define CR0_PG UINT32_C(0x80000000)

enum vector {
	VECTOR_DE = 0,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
};

/* What an instruction handler reports. */
enum status {
	STATUS_OK = 0,
	STATUS_FAULT,	/* an exception is described in cpu->fault; nothing else changed */
	STATUS_REPEAT,	/* one REP iteration done, more to come: a step, but not a retired instruction */
	STATUS_PAUSE,	/* retired; the CPU spins, a tentative plan lets another one run */
	STATUS_STOP,	/* retired; the machine or this CPU cannot go on (halt, exit, choice) */
	STATUS_TRACE,	/* retired; the tracepoint the caller waits for was hit */
};

struct segment_register {
	uint64_t base;
	uint32_t limit;	   /* in bytes, granularity applied */
	uint16_t selector;
	uint8_t type;	   /* descriptor byte 5: P, DPL, S, type; 0 = unusable (null selector) */
	uint8_t flags;	   /* bit 0: D/B (32-bit); bit 1: flat (whole range readable and writable, no limit check) */
};
enum { SEGMENT_32BIT = 1, SEGMENT_FLAT = 2 };

struct store_entry {
	uint64_t addr;
	uint64_t phys;
	uint64_t value;
	uint64_t pc;
	uint64_t size;
};

struct tlb_entry {
	uint64_t page; /* linear address of the page | 1, 0 = empty */
	uint64_t frame;
	uint64_t flags; /* the P, RW, US, D, G, PS bits in force, as in a page-table entry */
};

struct apic {
	uint32_t irr[8];
	uint32_t isr[8];
	uint32_t tpr;
	uint32_t svr;
	uint32_t icr_low;
	uint32_t icr_high;
	uint32_t lvt_timer;
	uint32_t timer_initial;
};

enum wait { WAIT_NONE, WAIT_HALT, WAIT_START, WAIT_CHOICE };

/* One CPU's architectural state. */
struct cpu_state {
	uint64_t gpr[17];
	uint64_t rip;
	uint64_t rflags; /* all but the arithmetic flags, which are kept below in parts */

	/* Arithmetic flags: each from its own source, so that handlers only store and nothing is computed twice. */
	uint64_t zf_source; /* ZF = (zf_source == 0) */
	int64_t sf_source;  /* SF = (sf_source < 0) */
	uint64_t pf_source; /* PF = even parity of the low byte */
	uint64_t af_source; /* AF = bit 4 */
	uint32_t cf;	    /* 0 or 1 */
	uint32_t of;	    /* 0 or 1 */

	uint64_t retired;     /* instructions completed */
	uint64_t shadow_mark; /* interrupts stay off while retired == shadow_mark (after STI, MOV SS, POP SS) */

	struct segment_register segment[SEGMENT_COUNT];
	struct segment_register ldtr;
	struct segment_register tr;
	uint64_t gdt_base, idt_base;
	uint32_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4;
	uint32_t waiting; /* enum wait */
	uint32_t choice_count;
	uint32_t choice_answer;
	uint32_t store_count;
	struct apic apic;
	struct store_entry store[STORE_BUFFER_SLOTS]; /* [0] is the oldest; entries from store_count on are zero */
	struct tlb_entry tlb_small[TLB_SMALL_SLOTS];
	struct tlb_entry tlb_large[TLB_LARGE_SLOTS];
};

/* Derived: linear page -> host address. Valid only while the TLB holds the translation. */
struct fast_entry {
	uint64_t read_tag;  /* linear page, or ~0 */
	uint64_t write_tag; /* linear page if stores may go straight to RAM (dirty bit set, page known dirty, no code) */
	uint8_t *host;	    /* host address of the page */
	uint64_t frame;
};

struct fault {
	uint64_t addr; /* CR2 for #PF; first opcode bytes for #UD */
	uint32_t error;
	uint8_t vector;
	bool has_error;
	bool has_addr;
};

struct machine;
struct op;
struct code_page;

struct cpu {
	struct cpu_state s;

	/* Never saved. */
	struct machine *machine;
	uint32_t number;
	bool buffered; /* the store buffer holds something, or stores are to be held: no direct stores, no direct loads */
	bool hold;     /* the plan wants the stores of this CPU held */
	uint8_t access_info; /* EVENT_LOCKED while a locked instruction runs */
	bool fetch_valid;
	uint64_t pc; /* of the instruction being executed: what events name */
	uint64_t fetch_page_rip; /* rip of byte 0 of the page instructions come from */
	struct code_page *fetch_code;
	struct fast_entry *fast; /* the row of fast_rows for the current privilege */
	struct fault fault;
	struct fast_entry fast_rows[2][FAST_SLOTS]; /* [0] supervisor, [1] user */
};

/* Machine-wide architectural state besides RAM and CPUs. */
struct platform_state {
	uint64_t ended; /* the guest wrote the exit port, or a CPU shut down */
	uint64_t exit_status;
	uint64_t shutdown;
};

enum page_flags {
	PAGE_UNSAVED = 1,  /* written since the last snapshot taken or restored */
	PAGE_UNHASHED = 2, /* written since its hash was computed */
	PAGE_CODE = 4,	   /* holds decoded instructions */
	PAGE_WRITTEN = 8,  /* may be non-zero */
	PAGE_DIRECT_MASK = PAGE_UNSAVED | PAGE_UNHASHED | PAGE_CODE,
	PAGE_DIRECT = PAGE_UNSAVED | PAGE_UNHASHED, /* direct stores are allowed if the masked flags equal this */
};

struct page_tree;

struct memory {
	uint8_t *ram;
	uint64_t size_bytes;
	uint32_t page_count;
	uint32_t unsaved_count;
	uint32_t unhashed_count;
	uint8_t *flags;	      /* [page_count] enum page_flags */
	uint32_t *unsaved;    /* [page_count] page frame numbers */
	uint32_t *unhashed;   /* [page_count] */
	uint64_t *page_hash;  /* [page_count] 0 for an all-zero page */
	uint64_t hash_sum;
	struct page_tree *saved; /* content at the last snapshot taken or restored */
};

struct tap {
	bool on;
	uint32_t count;
	uint32_t capacity;  /* execution stops here */
	uint32_t allocated; /* capacity + EVENTS_PER_STEP_MAX */
	uint64_t *step, *pc, *addr, *phys, *value;
	uint8_t *kind, *cpu, *size, *info;
};

struct plan_record {
	uint8_t op;
	uint8_t cpu;
	uint16_t flags;
	uint32_t zero;
	uint64_t arg;
};

struct choice_log {
	bool on;
	bool failed; /* out of memory: the caller is told at the end of the call */
	size_t count;
	size_t allocated;
	struct plan_record *records;
};

struct console {
	size_t count;
	size_t allocated;
	char *text;
};

struct decode_cache;

struct machine {
	uint64_t step;
	uint32_t cpu_count;
	uint32_t store_capacity;
	struct platform_state s;
	struct memory memory;
	struct cpu *cpus; /* [cpu_count] */

	/* Where the default schedule stands: no state of the guest's, so not hashed; but snapshots keep it, so that the
	 * schedule goes on from there as it would have. */
	uint32_t auto_cpu;

	/* Never saved. */
	struct tap tap;
	struct choice_log choices;
	struct console console;
	struct decode_cache *code;
	uint32_t stop_at_trace;
	uint64_t run_end; /* step at which cpu_run stops; a CPU that interrupts itself brings it forward */
};

static_assert(sizeof(struct segment_register) == 16, "no padding");
static_assert(sizeof(struct apic) == 88, "no padding");
static_assert(sizeof(struct cpu_state) ==
	17 * 8 + 8 + 8 + 4 * 8 + 8 + 16 + 8 * 16 + 16 + 8 + 32 + 16 + 88 + STORE_BUFFER_SLOTS * 40 +
	(TLB_SMALL_SLOTS + TLB_LARGE_SLOTS) * 24, "no padding: copied and hashed as bytes");
static_assert(sizeof(struct plan_record) == 16, "the layout Python and the tape use");

/* Creates a machine in its reset state; NULL if memory is short. Arguments are checked by the caller. */
struct machine *machine_create(uint32_t cpu_count, uint64_t ram_bytes, uint32_t store_capacity);
/* Accepts NULL. */
void machine_destroy(struct machine *m);
/* Puts `c` into the state of docs/platform.md "Start", about to execute at physical address `entry`. */
void cpu_start(struct cpu *c, uint64_t entry);
/* Drops everything derived from this CPU's state; to be called after `c->s` was changed from outside. */
void cpu_refresh(struct cpu *c);

ALWAYS_INLINE uint32_t cpu_privilege(const struct cpu *c)
{
	return c->s.segment[CS].selector & 3;
}

#endif
