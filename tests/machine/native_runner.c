/* Runs vectors of user-mode code on the real CPU: 64-bit, 32-bit (selector 0x23) and 16-bit (a segment of the LDT).
 *
 * Freestanding: Linux x86-64 system calls, no library. stdin: any number of struct vector; stdout: one struct header,
 * then one struct outcome each. Everything happens in the handler of the signal that ends a vector (INT3 after the
 * code, or a fault): it notes the outcome, loads the next vector into the signal frame and returns into it. The frame
 * holds the code segment, so the return is also the change of mode.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
	CODE_MAP = 0x2000, CODE_SIZE = 64,
	DATA_MAP = 0x2000, /* two pages, holes around */
	STACK_MAP = 0x1000, FIXED_MAP = 0x1000 /* read only */,
	MIDDLE_SIZE = 256, EDGE_SIZE = 128, TOP_SIZE = 256, LOW_SIZE = 128, HIGH_SIZE = 256,
	GPR_COUNT = 16, WINDOW_COUNT = 5,
};

static const u64 CODE = 0x100000, DATA = 0x110000, STACK = 0x120000, FIXED = 0x130000;
static const u64 HIGH_DATA = 0x7a5a5a000000, HIGH_CODE = 0x7a5a5a100000;
static const u64 FS_BASE = 0x7a5a5a000000 - 0x20000000, GS_BASE = 0x110000 - 0x8000;

struct memory {
	u8 middle[MIDDLE_SIZE], edge[EDGE_SIZE], top[TOP_SIZE], low[LOW_SIZE], high[HIGH_SIZE];
};

struct vector {
	u64 gpr[GPR_COUNT]; /* in the order of their numbers in machine code: RAX RCX RDX RBX RSP RBP RSI RDI R8 ... */
	u64 flags;
	u64 entry; /* linear address the code is put at */
	u64 ip;	   /* where it starts, in its code segment */
	u16 cs, ss, ds, es, fs, gs, zero[2];
	u8 code[CODE_SIZE]; /* the rest of the code pages is INT3 */
	struct memory memory;
};

struct outcome {
	u64 gpr[GPR_COUNT];
	u64 flags, ip, trap, error, cr2;
	u16 cs, ss, ds, es, fs, gs, zero[2];
	u64 pages; /* checksum of all data pages: finds what was written outside the windows */
	struct memory memory;
};

struct header {
	u32 magic;
	u32 has_ldt; /* the LDT has the segments below: without it, no 16-bit code */
};

struct sigcontext {
	u64 r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	u16 cs, gs_unused, fs_unused, ss;
	u64 err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct ucontext {
	u64 flags, link, stack[3];
	struct sigcontext c;
};

struct sigaction {
	void (*handler)(int, void *, struct ucontext *);
	u64 flags;
	void (*restorer)(void);
	u64 mask;
};

/* struct user_desc of asm/ldt.h */
struct user_desc {
	u32 entry, base, limit;
	u32 is_32bit : 1, contents : 2, read_or_execute_only : 1, in_pages : 1, not_present : 1, useable : 1, is_64bit : 1;
};

enum {
	SYS_read = 0, SYS_write = 1, SYS_mmap = 9, SYS_mprotect = 10, SYS_rt_sigaction = 13, SYS_exit = 60,
	SYS_sigaltstack = 131, SYS_modify_ldt = 154, SYS_arch_prctl = 158, ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002,
	SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000, SA_NODEFER = 0x40000000,
	READ = 1, WRITE = 2, EXEC = 4, PRIVATE_FIXED_ANONYMOUS = 0x100032,
};

static u64 call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	u64 ret;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = 0;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static void stop(u64 status)
{
	for (;;)
		call(SYS_exit, status, 0, 0, 0, 0);
}

void *memcpy(void *to, const void *from, u64 size)
{
	void *ret = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return ret;
}

void *memset(void *to, int value, u64 size)
{
	void *ret = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return ret;
}

static u8 alternate_stack[1 << 18];
static struct vector current;
static struct outcome outcome;
static int running;

/* False at the end of the input. */
static int read_vector(void)
{
	u64 at = 0;
	while (at < sizeof(current)) {
		long got = (long)call(SYS_read, 0, (u64)&current + at, sizeof(current) - at, 0, 0);
		if (got <= 0)
			return 0;
		at += (u64)got;
	}
	return 1;
}

static void write_all(const void *data, u64 size)
{
	u64 at = 0;
	while (at < size) {
		long put = (long)call(SYS_write, 1, (u64)data + at, size - at, 0, 0);
		if (put <= 0)
			stop(3);
		at += (u64)put;
	}
}

static const struct {
	u64 addr, size;
} windows[WINDOW_COUNT] = {
	{DATA + 0x1000 - 128, MIDDLE_SIZE},	 /* over the page boundary */
	{DATA + DATA_MAP - 128, EDGE_SIZE},	 /* before the hole */
	{STACK + 0x800 - 128, TOP_SIZE},
	{STACK, LOW_SIZE},			 /* above the hole a stack grows into */
	{HIGH_DATA + 0x1000 - 128, HIGH_SIZE}, /* over the page boundary */
};

static void save_windows(void)
{
	u8 *to = (u8 *)&outcome.memory;
	for (u32 i = 0; i < WINDOW_COUNT; to += windows[i++].size)
		memcpy(to, (void *)windows[i].addr, windows[i].size);
}

static void load_windows(void)
{
	u8 *from = (u8 *)&current.memory;
	for (u32 i = 0; i < WINDOW_COUNT; from += windows[i++].size)
		memcpy((void *)windows[i].addr, from, windows[i].size);
}

static u64 checksum_pages(void)
{
	static const struct {
		u64 addr, size;
	} pages[] = {{DATA, DATA_MAP}, {STACK, STACK_MAP}, {HIGH_DATA, DATA_MAP}};
	u64 sum = 0, factor = 1;
	for (u32 i = 0; i < 3; i++)
		for (const u64 *at = (u64 *)pages[i].addr; at < (u64 *)(pages[i].addr + pages[i].size); at++, factor += 2)
			sum += *at * factor;
	return sum;
}

static void save(const struct sigcontext *c)
{
	u64 gpr[GPR_COUNT] = {c->ax, c->cx, c->dx, c->bx, c->sp, c->bp, c->si, c->di,
			      c->r8, c->r9, c->r10, c->r11, c->r12, c->r13, c->r14, c->r15};
	memcpy(outcome.gpr, gpr, sizeof(gpr));
	outcome.flags = c->flags;
	outcome.ip = c->ip;
	outcome.trap = c->trapno;
	outcome.error = c->err;
	outcome.cr2 = c->cr2;
	outcome.cs = c->cs;
	outcome.ss = c->ss;
	/* The frame does not have these; in 64-bit code, which this handler is, they are still what they were. */
	__asm__ volatile("mov %%ds, %0" : "=r"(outcome.ds));
	__asm__ volatile("mov %%es, %0" : "=r"(outcome.es));
	__asm__ volatile("mov %%fs, %0" : "=r"(outcome.fs));
	__asm__ volatile("mov %%gs, %0" : "=r"(outcome.gs));
	save_windows();
	outcome.pages = checksum_pages();
}

static void load(struct sigcontext *c)
{
	memset((void *)CODE, 0xcc, CODE_MAP);
	memset((void *)HIGH_CODE, 0xcc, CODE_MAP);
	memset((void *)DATA, 0, DATA_MAP);
	memset((void *)STACK, 0, STACK_MAP);
	memset((void *)HIGH_DATA, 0, DATA_MAP);
	memcpy((void *)current.entry, current.code, CODE_SIZE);
	load_windows();
	c->ax = current.gpr[0], c->cx = current.gpr[1], c->dx = current.gpr[2], c->bx = current.gpr[3];
	c->sp = current.gpr[4], c->bp = current.gpr[5], c->si = current.gpr[6], c->di = current.gpr[7];
	c->r8 = current.gpr[8], c->r9 = current.gpr[9], c->r10 = current.gpr[10], c->r11 = current.gpr[11];
	c->r12 = current.gpr[12], c->r13 = current.gpr[13], c->r14 = current.gpr[14], c->r15 = current.gpr[15];
	c->fpstate = 0; /* a fresh one: what runs into x87 code must leave no exception behind */
	c->flags = current.flags;
	c->ip = current.ip;
	c->cs = current.cs;
	c->ss = current.ss;
	__asm__ volatile("mov %0, %%ds" : : "r"(current.ds));
	__asm__ volatile("mov %0, %%es" : : "r"(current.es));
	__asm__ volatile("mov %0, %%fs" : : "r"(current.fs));
	__asm__ volatile("mov %0, %%gs" : : "r"(current.gs));
	if (current.fs == 0)
		call(SYS_arch_prctl, ARCH_SET_FS, FS_BASE, 0, 0, 0);
	if (current.gs == 0)
		call(SYS_arch_prctl, ARCH_SET_GS, GS_BASE, 0, 0, 0);
}

static void handler(int signal, void *info, struct ucontext *context)
{
	(void)signal;
	(void)info;
	/* The return from a signal does not put back these flags: nested task and CPUID. */
	__asm__ volatile("pushfq\n\tandq $~0x204000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	if (running) {
		save(&context->c);
		write_all(&outcome, sizeof(outcome));
	}
	running = 1;
	if (!read_vector())
		stop(0);
	load(&context->c);
}

__asm__(".globl restorer\nrestorer: mov $15, %eax\n\tsyscall");
void restorer(void);

static void map(u64 addr, u64 size, u64 protection)
{
	if (call(SYS_mmap, addr, size, protection, PRIVATE_FIXED_ANONYMOUS, (u64)-1) != addr)
		stop(4);
}

/* The segments of native_layout.LDT, in its order. */
static u32 make_ldt(void)
{
	static const struct user_desc segments[] = {
		{.entry = 0, .base = 0x100000, .limit = 0xffff, .contents = 2, .useable = 1},
		{.entry = 1, .base = 0x108000, .limit = 0xffff, .useable = 1},
		{.entry = 2, .base = 0x118000, .limit = 0xffff, .useable = 1},
		{.entry = 3, .base = 0x110000, .limit = 0x1fbf, .is_32bit = 1, .useable = 1},
		{.entry = 4, .base = 0x110000, .limit = 0x0fff, .is_32bit = 1, .contents = 1, .useable = 1},
		{.entry = 5, .base = 0, .limit = 0xfffff, .is_32bit = 1, .in_pages = 1, .read_or_execute_only = 1, .useable = 1},
		{.entry = 6, .base = 0, .limit = 0xfffff, .is_32bit = 1, .contents = 2, .in_pages = 1,
		 .read_or_execute_only = 1, .useable = 1},
		{.entry = 7, .base = 0, .limit = 0xfffff, .is_32bit = 1, .in_pages = 1, .not_present = 1, .useable = 1},
		{.entry = 8, .base = 0x100000, .limit = 0x1fff, .is_32bit = 1, .contents = 2, .useable = 1},
	};
	for (u32 i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
		if ((int)call(SYS_modify_ldt, 0x11, (u64)&segments[i], sizeof(segments[i]), 0, 0) != 0)
			return 0;
	return 1;
}

void _start(void)
{
	static const u8 signals[] = {4, 5, 7, 8, 11}; /* ILL, TRAP, BUS, FPE, SEGV */
	u64 stack[3] = {(u64)alternate_stack, 0, sizeof(alternate_stack)};
	struct sigaction action = {handler, SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER, restorer, 0};
	map(CODE, CODE_MAP, READ | WRITE | EXEC);
	map(DATA, DATA_MAP, READ | WRITE);
	map(STACK, STACK_MAP, READ | WRITE);
	map(FIXED, FIXED_MAP, READ | WRITE);
	map(HIGH_DATA, DATA_MAP, READ | WRITE);
	map(HIGH_CODE, CODE_MAP, READ | WRITE | EXEC);
	for (u32 i = 0; i < FIXED_MAP; i++)
		((u8 *)FIXED)[i] = (u8)(i * 37 + 11);
	call(SYS_mprotect, FIXED, FIXED_MAP, READ, 0, 0);
	struct header header = {0x4e545652, make_ldt()};
	write_all(&header, sizeof(header));
	call(SYS_sigaltstack, (u64)stack, 0, 0, 0, 0);
	for (u32 i = 0; i < sizeof(signals); i++)
		call(SYS_rt_sigaction, signals[i], (u64)&action, 0, 8, 0);
	__asm__ volatile("int3");
	stop(5);
}
