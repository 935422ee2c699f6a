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

#include "pc.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* What stands before is done first: all at once would need more registers than handlers have to spare. */
#define ONE_AFTER_THE_OTHER __asm__ volatile("" ::: "memory")
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Handlers of instructions call each other as their last act in optimised builds: see chain.h. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(RACETAPE_UNCHAINED)
#define RACETAPE_CHAINED 1
#else
#define RACETAPE_CHAINED 0
#endif

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
	FETCH_SLOTS = 32,
	/* 64 accesses of ENTER in two pieces each, with at most 14 events of TLB and walk a piece; three deliveries on top of
	 * a fault, 22 accesses each, in the same way; and a whole store buffer drained. */
	PARTIAL_MAX = 3, /* CMPS: two loads, each over the border of a cache line; the last is not kept */
	EVENTS_PER_STEP_MAX = 4096,
};

#define APIC_BASE UINT64_C(0xFEE00000)

enum gpr {
	RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
	GPR_ZERO, /* always 0: base or index "none" of an effective address */
	GPR_PAGE, /* derived: rip of byte 0 of the page instructions come from, base of RIP-relative addresses */
	GPR_COUNT,
	GPR_HIGH = 16, /* as operands of byte instructions: AH, CH, DH, BH are 16 to 19 */
};
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
	CR0_MP = 1 << 1,
	CR0_EM = 1 << 2,
	CR0_TS = 1 << 3,
	CR0_ET = 1 << 4,
	CR0_NE = 1 << 5,
	CR0_WP = 1 << 16,
	CR0_AM = 1 << 18,
	CR0_NW = 1 << 29,
	CR0_CD = 1 << 30,
	CR4_TSD = 1 << 2,
	CR4_DE = 1 << 3,
	CR4_PSE = 1 << 4,
	CR4_PAE = 1 << 5,
	CR4_MCE = 1 << 6,
	CR4_PGE = 1 << 7,
	EFER_SCE = 1 << 0,
	EFER_LME = 1 << 8,
	EFER_LMA = 1 << 10,
	EFER_NXE = 1 << 11,
	DR6_BD = 1 << 13,
	DR6_BS = 1 << 14,
	DR7_ENABLED = 0xff,
	DR7_GD = 1 << 13,
};
#define CR0_PG UINT32_C(0x80000000)
#define DR6_FIXED UINT32_C(0xffff0ff0) /* bits that always read as one */
#define DR7_FIXED UINT32_C(0x00000400)

enum vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
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
	VECTOR_AC = 17,
};

/* What an instruction handler reports. */
enum status {
	STATUS_OK = 0,	/* one instruction retired */
	STATUS_END,	/* a chain of instructions retired; step, rip and retired say how far it came */
	STATUS_NEXT,	/* unoptimised builds: go on with cpu->op */
	STATUS_REDO,	/* not so simple: the general handler has to do it; nothing happened */
	STATUS_BLOCKED,	/* the instruction has to wait for the store buffer; nothing happened */
	STATUS_VISIBLE, /* the instruction would touch a shared word, and the run asks (visible.h); nothing happened */
	STATUS_FAULT,	/* an exception is described in cpu->fault; nothing else changed */
	STATUS_REPEAT,	/* one REP iteration done, more to come: a step, but not a retired instruction */
	STATUS_PARTIAL, /* some of what the instruction loads is loaded: a step, and the instruction starts again in the next */
	STATUS_PAUSE,	/* retired; the CPU spins, a tentative plan lets another one run */
	STATUS_STOP,	/* retired; the machine or this CPU cannot go on (halt, exit, choice) */
	STATUS_TRACE,	/* retired; the tracepoint the caller waits for was hit */
};

struct segment_register {
	uint64_t base;
	uint32_t limit;	   /* in bytes, granularity applied */
	uint16_t selector;
	uint8_t type;	   /* descriptor byte 5: P, DPL, S, type; 0 = unusable (null selector) */
	uint8_t flags;
};
enum {
	SEGMENT_32BIT = 1, /* D/B */
	SEGMENT_FLAT = 2,  /* whole range readable and writable: no check needed */
	SEGMENT_64BIT = 4, /* L: 64-bit code */
};

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
	uint64_t flags; /* the P, RW, US, D, G, PS and NX bits in force, as in a page-table entry */
	uint64_t shift; /* log2 of the page's size */
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

enum { TRAPS_BEHIND_SS = 1 << 16 };

enum wait { WAIT_NONE, WAIT_HALT, WAIT_START, WAIT_CHOICE };

/* One CPU's architectural state. */
struct cpu_state {
	uint64_t gpr[GPR_COUNT]; /* [GPR_PAGE] is derived, and 0 in every saved or hashed state */
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
	uint64_t pdpte[4]; /* PAE: read when CR3 is loaded, used by walks */
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable, tsc_aux;
	uint64_t dr[8]; /* 4 and 5 unused */
	uint32_t nmi_pending; /* 0 or 1 */
	uint32_t nmi_blocked; /* 0 or 1: until the next IRET */
	uint32_t repeating;   /* 0 or 1: between two iterations of a repeated string instruction */
	uint32_t traps_held;  /* DR6 bits of breakpoints that MOV SS or POP SS holds back, and TRAPS_BEHIND_SS */
	uint32_t waiting; /* enum wait */
	uint32_t choice_count;
	uint32_t choice_answer;
	uint32_t store_count;
	uint32_t partial_count; /* loads that earlier steps of the instruction at rip have made; no interrupt comes before it ends */
	uint32_t zero;
	uint64_t partial[PARTIAL_MAX]; /* what they loaded; 0 from partial_count on */
	struct apic apic;
	struct store_entry store[STORE_BUFFER_SLOTS]; /* [0] is the oldest; entries from store_count on are zero */
	struct tlb_entry tlb_small[TLB_SMALL_SLOTS];
	struct tlb_entry tlb_large[TLB_LARGE_SLOTS];
};

/* Derived: linear page -> host address. Valid only while the TLB holds the translation. */
struct fast_entry {
	uint64_t read_tag;  /* linear page, or ~0 */
	uint64_t write_tag; /* linear page if stores may go straight to RAM (dirty bit set, page known dirty, no code) */
	uint64_t host; /* host address - linear address */
	uint64_t phys; /* physical address - linear address */
};

struct fault {
	uint64_t addr; /* CR2 for #PF; first opcode bytes for #UD */
	uint32_t error;
	uint8_t vector;
	bool has_error;
	bool has_addr;
};

struct machine;
struct cpu;
struct op;
struct code_page;

/* Derived: a segment register as accesses of the current mode need it. */
struct segment_view {
	uint64_t base;
	bool checked; /* limit and rights matter */
};

/* A decoded instruction (op.h has the rest of the story). One cache line. */
typedef enum status (*op_handler)(struct cpu *c, const struct op *op);

struct op {
	op_handler handler;
	int64_t immediate; /* sign-extended, but for the forms that take it as a count, port or frame size */
	int64_t displacement; /* RIP-relative: from the start of the page */
	union {
		const struct op *link; /* a branch within the page: where it goes; NULL until it was taken */
		op_handler inner;      /* a locked instruction: what it does */
		uint64_t host;	       /* a load: fast_entry.host of the last one; only a guess */
	};
	uint64_t address_mask; /* of effective addresses */
	uint16_t row; /* in the instruction table */
	uint16_t selector; /* far selector; nesting level of ENTER */
	uint16_t offset; /* in its page */
	uint8_t number;	/* in its block */
	uint8_t left;	/* steps that the block takes from here on, if it runs to its end */
	uint8_t reg;	/* ModRM.reg, or the register in the opcode */
	uint8_t rm;	/* ModRM.rm as a register */
	uint8_t base;	/* GPR_ZERO if none */
	uint8_t index;	/* GPR_ZERO if none */
	uint8_t scale;	/* shift count */
	uint8_t segment;
	uint8_t size;	/* of the operands, bytes */
	uint8_t length; /* of the instruction, bytes */
	uint8_t address_size; /* bytes */
	uint8_t opcode;
	uint16_t flags;
};

struct cpu {
	struct cpu_state s;

	/* Never saved. */
	struct machine *machine;
	uint32_t number;
	uint8_t bits;	   /* of the code that runs: 16, 32 or 64 */
	bool hold;	   /* the plan wants the stores of this CPU held */
	bool buffered;	   /* the store buffer holds something, or stores are to be held */
	bool flat;	   /* DS, ES and SS start at 0 and have no limit, and the stack pointer is as wide as addresses */
	bool careful;	   /* single step, breakpoints or alignment checks: every access and instruction is looked at */
	bool trap_armed;   /* a single-step trap is due after this instruction */
	bool trap_delayed; /* but not yet: the instruction loaded SS */
	bool resume_loaded; /* the instruction loaded RF: it does not end with it */
	bool stores_in_code; /* a buffered store may cover instructions */
	bool ahead;	   /* RAM already holds what the store buffer holds: see store_buffer.h */
	bool room_made;	   /* a store drained within the current run because the CPU had to wait */
	uint16_t stop_flags; /* instructions with any of these OP_ flags end a chain: they may have to wait for the buffer */
	uint8_t access_info; /* EVENT_LOCKED while a locked instruction runs */
	uint64_t linear_mask; /* of linear addresses and rip in this mode */
	uint64_t stack_mask;
	uint64_t code_limit; /* highest offset a near jump may go to outside 64-bit code */
	struct segment_view view[SEGMENT_COUNT];
	struct fast_entry *fast_read;  /* the rows of fast_rows in use */
	struct fast_entry *fast_write;
	struct fast_entry *flat_read; /* the same, or no rows unless DS, ES, SS and the stack pointer span all addresses */
	struct fast_entry *flat_write;

	/* Within a chain of instructions, step and rip follow from the instruction reached: see chain.h. */
	int64_t step_base;     /* step of instruction number 0 of the block */
	uint64_t retired_base; /* retired - step */
	uint64_t page_linear;  /* linear address of the page instructions come from */
	const struct op *op;   /* where a chain goes on (STATUS_NEXT) */

	uint64_t pc; /* of the instruction being executed: what events name */
	uint64_t loaded; /* result of the last access_load_slow */
	uint32_t store_first;  /* index of the oldest store; 0 in every saved or hashed state */
	uint64_t store_filter; /* bit n: a buffered store touches an aligned 8-byte word with number n modulo 64; 0 if nobody asks */
	uint32_t ahead_slots;	 /* while ahead: slots for direct stores; else 0 */
	uint32_t ahead_capacity; /* the machine's store_capacity */
	uint64_t ahead_filter;	 /* 1 if events are recorded: only they tell forwarded values from others */
	int64_t ahead_end;	 /* the machine's chain_end; 0 if a full buffer may not make room by itself */
	uint64_t store_behind[STORE_BUFFER_SLOTS]; /* while ahead: what RAM held where this store lies */
	uint64_t watch_hits; /* DR6 bits of breakpoints hit by the current instruction */
	struct fault fault;
	uint64_t fetch_tag[FETCH_SLOTS]; /* linear page, or ~0 */
	struct code_page *fetch_code[FETCH_SLOTS];
	struct op single[2]; /* an instruction executed by itself */
	struct fast_entry fast_rows[3][FAST_SLOTS]; /* [0] supervisor, [1] user, [2] always empty: nothing is fast */
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
	PAGE_UNTAKEN = 16, /* written since memory_take_pages */
	PAGE_FREED = 32,   /* the guest has given it back: see pool.h */
	PAGE_NOTICED = PAGE_UNSAVED | PAGE_UNHASHED | PAGE_UNTAKEN, /* whoever has to know that it is written knows */
	PAGE_DIRECT_MASK = PAGE_NOTICED | PAGE_CODE | PAGE_FREED,
	PAGE_DIRECT = PAGE_NOTICED, /* direct stores are allowed if the masked flags equal this */
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

/* What happened: event.def. Rows, because one cache line or two are cheaper to fill than nine; seen as columns. */
struct event {
	uint64_t step, pc, addr, phys, value;
	uint8_t kind, cpu, size, info;
	uint32_t zero;
};

enum { TAP_SPARE_MAX = 4 };

struct tap {
	bool on;
	uint32_t capacity;  /* execution stops when so many events are there, or a few more */
	uint32_t allocated; /* with the room for what happens until it stops */
	struct event *next; /* row to be filled */
	struct event *full; /* where no instruction begins any more; while the tap is off, the same as `end` */
	struct event *end;
	struct event_block *block;
	struct event_block *spare[TAP_SPARE_MAX]; /* used memory, which costs less than new one */
	uint32_t spare_count;
};

enum plan_op { PLAN_RUN = 1, PLAN_DRAIN, PLAN_IRQ, PLAN_CHOICE, PLAN_EVICT, PLAN_AUTO, PLAN_PICK, PLAN_STEP };
enum plan_flags {
	PLAN_HOLD = 1, /* stores stay in the buffer */
	PLAN_ON = 4,   /* a PAUSE does not end the run of a tentative plan */
	PLAN_ROOM = 2, /* where the CPU has to wait for its buffer, the oldest store drains first: a step of the run */
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

enum { VISIBLE_NOTES_MAX = 4, VISIBLE_UNDO_MAX = 64 };

/* What looking up translations has changed: a TLB entry, or (`entry` NULL) memory. */
struct visible_undo {
	struct tlb_entry *entry;
	struct tlb_entry before;
	uint64_t phys, value;
	uint32_t size;
};

/* A shared word that an instruction touches, or a port (VISIBLE_PORT). */
struct visible_note {
	uint64_t phys, size;
	bool writes; /* others see it change */
	bool locked;
	/* A load, all of it from the CPU's own store buffer: so many stores to shared words have to drain until its own has; else 0. */
	uint32_t forwarded;
};

/* A set of shared words. */
struct shared {
	uint8_t *words; /* NULL: there is none; else a bit for each aligned 4 bytes of RAM */
	uint8_t *pages; /* [page_count] not 0: has such words */
};

enum shared_scope {
	SHARED_CPUS,  /* between CPUs */
	SHARED_TASKS, /* between tasks as well */
	SHARED_COUNT,
};

struct watch {
	struct shared sets[SHARED_COUNT];
	uint64_t changes[SHARED_COUNT]; /* how often a set was replaced */
	const struct shared *set; /* in force while agents choose; NULL: shared words are not told from others */
	bool settling;	/* a CPU runs up to its next visible step */
	bool needs_room; /* the run stopped because its store buffer is full */
	bool asks;	/* a run stops before an instruction that touches one */
	uint32_t count;
	uint32_t drained; /* stores to shared words, while notes are taken */
	uint32_t undo_count;
	uint32_t stores, partial_count;
	uint64_t stores_step; /* of the instruction before whose stores there were `stores` in its CPU's buffer */
	uint64_t partial[PARTIAL_MAX];
	uint64_t undo_step; /* of the instruction whose look-ups are in `undo` */
	struct visible_undo undo[VISIBLE_UNDO_MAX];
	bool stopped; /* since last reset, before what `stopped_at` says */
	struct visible_note stopped_at;
	struct visible_note notes[VISIBLE_NOTES_MAX]; /* of the instruction before which it stopped, or since last emptied */
};

enum { AGENT_CPU = 0, AGENT_DRAIN = 8, AGENT_INTERRUPT = 16, AGENT_TICK = 24, AGENT_COUNT = 32 };
enum { SPIN_SEEN_MAX = 8, SPIN_READ_MAX = 8 };

/* Where a CPU stands between two choices of agents.h. */
enum agent_at {
	AT_UNKNOWN,   /* it has to run up to its next visible step */
	AT_VISIBLE,   /* before an instruction that touches a shared word */
	AT_LOOP,      /* in a loop without visible steps; passed over until anything changes */
	AT_INTERRUPT, /* where an interrupt became deliverable */
	AT_BUFFER,    /* before an instruction that waits until a store to a shared word has drained */
	AT_REST,      /* it waits */
};

struct agent_cpu {
	enum agent_at at;
	struct visible_note note; /* AT_VISIBLE: the first of what it will touch */
	uint64_t local_steps;	  /* since its last visible step; never 0 again before the next one */
	uint32_t loop_steps;	  /* how many more of them may be those of a loop without end; 0: that is not asked */
	uint64_t loop, loop_whole; /* digests, of its state then */
	bool spinning;		  /* passed over until what it has read changes */
	uint32_t seen_count, read_count;
	uint64_t seen[SPIN_SEEN_MAX]; /* digests of its registers before its last visible steps, since it changed anything */
	struct visible_note read[SPIN_READ_MAX]; /* what it has read since then */
	uint64_t whole[SPIN_SEEN_MAX]; /* of those in `seen` that came again: memory then; else 0 */
};

enum { CLASS_PAIRS = 1 << 16 };

struct class_word;

/* See classes.h. */
struct classes {
	struct class_word *words;
	bool off;	/* the search keeps count itself */
	uint64_t run, hash;
	uint64_t last[AGENT_INTERRUPT]; /* hash of the last step of a CPU or store buffer */
	uint64_t count[AGENT_COUNT];	/* steps of each agent */
	uint8_t pairs[CLASS_PAIRS / 8]; /* of all runs since it was taken */
};

enum { PICK_CHANGE_MAX = 8 };

/* Where a PLAN_PICK stands. */
struct pick {
	uint32_t policy;
	uint64_t seed;
	uint64_t steps, steps_expected; /* visible ones */
	uint32_t ticks;			/* left */
	uint32_t drawn;			/* agents that have a priority, as bits */
	uint32_t lowered;
	uint32_t change_count;
	uint64_t change[PICK_CHANGE_MAX];
	uint64_t priority[AGENT_COUNT];
	uint32_t weights[AGENT_COUNT], left[AGENT_COUNT]; /* visible steps: of each agent in a run, and to come */
};

struct agents {
	bool eager;	   /* stores drain at once */
	uint32_t ticks;	   /* so far */
	uint32_t ticks_in_vain; /* since anybody who spun was woken */
	bool overlooked;   /* a search that goes on choosing like this may miss something: see agents.h */
	uint32_t patience; /* how often those who spin were let go on since anything changed */
	struct agent_cpu cpu[CPU_MAX];
};

/* A use of a freed page. */
struct pool_use {
	uint32_t access; /* enum pool_access; 0: there was none */
	uint32_t cpu, freed_by;
	uint64_t step, freed_step;
	uint64_t addr, phys; /* of a walk: what is translated, and the entry; of a page freed twice: its struct page */
	uint64_t pc;	     /* of a drain: the store's */
};

struct pool_leaf;

/* See pool.h. */
struct pool {
	uint64_t pages, page_size;   /* of the array of `struct page`: linear address, bytes of each */
	uint32_t first, count;	     /* frames; no count: there is no pool */
	uint32_t alloc, free;	     /* tracepoints */
	bool looks;		     /* a run is made, not repeated */
	bool failed;		     /* out of memory: the caller is told at the end of the call */
	bool shared_freed;	     /* a page with shared words was freed since this was last reset */
	struct pool_use use; /* that has ended a run; the first since the machine was restored */
	struct pool_use met; /* the last one while choices were repeated */
	struct pool_leaf **leaves;
};

enum { LEDGER_REGIONS = 8, LEDGER_ITEMS = 64 };

struct ledger_sums {
	int64_t sum[LEDGER_REGIONS][LEDGER_ITEMS];
	uint64_t announced; /* bit n: item n was */
};

/* See ledger.h. */
struct ledger {
	uint32_t trace;		   /* tracepoint; 0: there is no ledger */
	uint32_t first;		   /* frame of the page at `pages` */
	uint64_t pages, page_size; /* of the array of `struct page`: linear address, bytes of each */
	uint32_t region_count;
	struct {
		uint32_t first, end; /* frames */
	} regions[LEDGER_REGIONS];
	struct ledger_sums *sums;
};

enum { CIRCLES_MAX = 32 };

/* The default schedule, at PAUSE: how often, and digests of the state when that was last a power of two. */
struct auto_loop {
	uint64_t pauses, digest, whole;
	uint32_t ticks; /* because it goes in circles that it has gone in before */
	uint32_t circle_count;
	uint64_t circles[CIRCLES_MAX]; /* digests of the last ones */
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
	struct auto_loop auto_loop; /* likewise */
	uint64_t clock_read; /* step of the last instruction that read the time: who does so may wait for it */

	/* Never saved. */
	struct tap tap;
	struct watch watch;
	struct agents agents;
	struct classes classes;
	struct pick pick;
	struct ledger ledger;
	struct pool pool; /* but for which pages are freed, which snapshots keep */
	struct choice_log choices;
	struct console console;
	struct decode_cache *code;
	uint32_t stop_at_trace;
	uint64_t run_end; /* step at which cpu_run stops; a CPU that interrupts itself brings it forward */
	bool makes_room;  /* the current run is one with PLAN_ROOM, or tentative */
	uint64_t chain_end; /* the same for chains; 0 if instructions are to be executed one by one */
	struct op *broken;  /* an instruction whose handler is `exec_stale` for the moment: see chain_stop_at */
	op_handler broken_handler;

	/* State as well, of a machine that is a PC; else all 0, and not saved. */
	bool pc;
	struct pc_state pc_state;
};

static_assert(sizeof(struct segment_register) == 16, "no padding");
static_assert(sizeof(struct apic) == 88, "no padding");
static_assert(sizeof(struct cpu_state) ==
	GPR_COUNT * 8 + 8 + 8 + 4 * 8 + 8 + 16 + 8 * 16 + 16 + 8 + 32 + 4 * 8 + 6 * 8 + 3 * 8 + 3 * 8 + 8 * 8 + 16 + 16 + 8 + PARTIAL_MAX * 8 + 88 +
	STORE_BUFFER_SLOTS * 40 + (TLB_SMALL_SLOTS + TLB_LARGE_SLOTS) * 32, "no padding: copied and hashed as bytes");
static_assert(sizeof(struct op) == 64, "one cache line");
static_assert(sizeof(struct event) == 48, "no padding");
static_assert(sizeof(struct plan_record) == 16, "the layout Python and the tape use");

/* The time stamp: the step, on a PC with what was skipped (pc.h). */
ALWAYS_INLINE uint64_t machine_time(const struct machine *m)
{
	return m->step + m->pc_state.skipped;
}

/* Creates a machine in its reset state; NULL if memory is short. Arguments are checked by the caller. */
struct machine *machine_create(uint32_t cpu_count, uint64_t ram_bytes, uint32_t store_capacity);
/* Accepts NULL. */
void machine_destroy(struct machine *m);
/* Puts `c` into the state of docs/platform.md "Start", about to execute at physical address `entry`. */
void cpu_start(struct cpu *c, uint64_t entry);
/* Drops everything derived from this CPU's state; to be called after `c->s` was changed from outside. */
void cpu_refresh(struct cpu *c);
/* Derives what depends on segments, control registers, flags TF and AC, debug registers and the store buffer. */
void cpu_update_mode(struct cpu *c);
/* Which accesses may be fast. */
void cpu_update_fast(struct cpu *c);
/* Gives equal states equal bytes, before they are copied or hashed. */
void cpu_canonicalise(struct cpu *c);

/* Long mode is active: 64-bit code, or 32- and 16-bit code in its compatibility mode. */
ALWAYS_INLINE bool cpu_long_mode(const struct cpu *c)
{
	return c->s.efer & EFER_LMA;
}

/* The instruction at rip starts from its beginning. */
static inline void partial_forget(struct cpu *c)
{
	for (uint32_t i = 0; i < c->s.partial_count; i++)
		c->s.partial[i] = 0;
	c->s.partial_count = 0;
}

ALWAYS_INLINE uint32_t cpu_privilege(const struct cpu *c)
{
	return c->s.segment[CS].selector & 3;
}

#endif
