/* Runs vectors of 32-bit user-mode code on the real CPU. Freestanding: Linux i386 system calls, no library.
 *
 * stdin: any number of struct vector; stdout: one struct outcome each. Everything happens in the handler of the signal
 * that ends a vector (INT3 after the code, or a fault): it notes the outcome, loads the next vector into the signal
 * frame and returns into it.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum {
	CODE = 0x100000, CODE_MAP = 0x2000, CODE_SIZE = 64,
	DATA = 0x110000, DATA_MAP = 0x2000, /* two pages, holes around */
	STACK = 0x120000, STACK_MAP = 0x1000,
	FIXED = 0x130000, FIXED_MAP = 0x1000, /* read only */
	MIDDLE = DATA + 0x1000 - 128, MIDDLE_SIZE = 256, /* over the page boundary */
	EDGE = DATA + DATA_MAP - 128, EDGE_SIZE = 128, /* before the hole */
	TOP = STACK + 0x800 - 128, TOP_SIZE = 256,
	LOW = STACK, LOW_SIZE = 128, /* above the hole a stack grows into */
};

enum { GPR_COUNT = 8 };

struct memory {
	u8 middle[MIDDLE_SIZE], edge[EDGE_SIZE], top[TOP_SIZE], low[LOW_SIZE];
};

struct vector {
	u32 gpr[GPR_COUNT]; /* EAX ECX EDX EBX ESP EBP ESI EDI */
	u32 flags;
	u32 entry; /* address the code is put at and started */
	u8 code[CODE_SIZE]; /* filled up with INT3 */
	struct memory memory;
};

struct outcome {
	u32 gpr[GPR_COUNT];
	u32 flags, eip, trap, error, cr2, segments[4]; /* ES, DS, FS, GS */
	struct memory memory;
};

struct sigcontext {
	u16 gs, gsh, fs, fsh, es, esh, ds, dsh;
	u32 di, si, bp, sp, bx, dx, cx, ax, trapno, err, ip;
	u16 cs, csh;
	u32 flags, sp_at_signal;
	u16 ss, ssh;
	u32 fpstate, oldmask, cr2;
};

struct ucontext {
	u32 flags, link, stack[3];
	struct sigcontext c;
};

struct sigaction {
	void (*handler)(int, void *, struct ucontext *);
	u32 flags;
	void (*restorer)(void);
	u32 mask[2];
};

enum {
	SYS_exit = 1, SYS_read = 3, SYS_write = 4, SYS_mprotect = 125, SYS_rt_sigaction = 174, SYS_sigaltstack = 186,
	SYS_mmap2 = 192,
	SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000, SA_NODEFER = 0x40000000,
	READ = 1, WRITE = 2, EXEC = 4, PRIVATE_FIXED_ANONYMOUS = 0x32,
};

static u32 call(u32 number, u32 a, u32 b, u32 c, u32 d, u32 e)
{
	u32 ret;
	__asm__ volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
			 : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
	return ret;
}

static void stop(u32 status)
{
	for (;;)
		call(SYS_exit, status, 0, 0, 0, 0);
}

void *memcpy(void *to, const void *from, u32 size)
{
	void *ret = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return ret;
}

static u8 alternate_stack[65536];
static struct vector current;
static struct outcome outcome;
static int running;

/* False at the end of the input. */
static int read_vector(void)
{
	u32 at = 0;
	while (at < sizeof(current)) {
		int got = (int)call(SYS_read, 0, (u32)&current + at, sizeof(current) - at, 0, 0);
		if (got <= 0)
			return 0;
		at += (u32)got;
	}
	return 1;
}

static void write_outcome(void)
{
	u32 at = 0;
	while (at < sizeof(outcome)) {
		int put = (int)call(SYS_write, 1, (u32)&outcome + at, sizeof(outcome) - at, 0, 0);
		if (put <= 0)
			stop(3);
		at += (u32)put;
	}
}

static void save(const struct sigcontext *c)
{
	u32 gpr[GPR_COUNT] = {c->ax, c->cx, c->dx, c->bx, c->sp, c->bp, c->si, c->di};
	memcpy(outcome.gpr, gpr, sizeof(gpr));
	outcome.flags = c->flags;
	outcome.eip = c->ip;
	outcome.trap = c->trapno;
	outcome.error = c->err;
	outcome.cr2 = c->cr2;
	outcome.segments[0] = c->es;
	outcome.segments[1] = c->ds;
	outcome.segments[2] = c->fs;
	outcome.segments[3] = c->gs;
	memcpy(outcome.memory.middle, (void *)MIDDLE, MIDDLE_SIZE);
	memcpy(outcome.memory.edge, (void *)EDGE, EDGE_SIZE);
	memcpy(outcome.memory.top, (void *)TOP, TOP_SIZE);
	memcpy(outcome.memory.low, (void *)LOW, LOW_SIZE);
}

static void load(struct sigcontext *c)
{
	static u8 breakpoints[CODE_SIZE * 4];
	for (u32 i = 0; i < sizeof(breakpoints); i++)
		breakpoints[i] = 0xcc;
	memcpy((void *)(current.entry - CODE_SIZE), breakpoints, sizeof(breakpoints));
	memcpy((void *)current.entry, current.code, CODE_SIZE);
	memcpy((void *)MIDDLE, current.memory.middle, MIDDLE_SIZE);
	memcpy((void *)EDGE, current.memory.edge, EDGE_SIZE);
	memcpy((void *)TOP, current.memory.top, TOP_SIZE);
	memcpy((void *)LOW, current.memory.low, LOW_SIZE);
	c->ax = current.gpr[0];
	c->cx = current.gpr[1];
	c->dx = current.gpr[2];
	c->bx = current.gpr[3];
	c->sp = current.gpr[4];
	c->bp = current.gpr[5];
	c->si = current.gpr[6];
	c->di = current.gpr[7];
	c->flags = current.flags;
	c->ip = current.entry;
	c->es = c->ds = 0x2b;
	c->fs = c->gs = 0;
}

static void handler(int signal, void *info, struct ucontext *context)
{
	(void)signal;
	(void)info;
	/* A vector may have left the direction flag set; signal delivery clears it, the segments are put back here. */
	if (running) {
		save(&context->c);
		write_outcome();
	}
	running = 1;
	if (!read_vector())
		stop(0);
	load(&context->c);
}

__asm__(".globl restorer\nrestorer: mov $173, %eax\n\tint $0x80");
void restorer(void);

static void map(u32 addr, u32 size, u32 protection)
{
	if (call(SYS_mmap2, addr, size, protection, PRIVATE_FIXED_ANONYMOUS, (u32)-1) != addr)
		stop(4);
}

void _start(void)
{
	static const u8 signals[] = {4, 5, 7, 8, 11}; /* ILL, TRAP, BUS, FPE, SEGV */
	u32 stack[3] = {(u32)alternate_stack, 0, sizeof(alternate_stack)};
	struct sigaction action = {handler, SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER, restorer, {0, 0}};
	map(CODE, CODE_MAP, READ | WRITE | EXEC);
	map(DATA, DATA_MAP, READ | WRITE);
	map(STACK, STACK_MAP, READ | WRITE);
	map(FIXED, FIXED_MAP, READ | WRITE);
	for (u32 i = 0; i < FIXED_MAP; i++)
		((u8 *)FIXED)[i] = (u8)(i * 37 + 11);
	call(SYS_mprotect, FIXED, FIXED_MAP, READ, 0, 0);
	call(SYS_sigaltstack, (u32)stack, 0, 0, 0, 0);
	for (u32 i = 0; i < sizeof(signals); i++)
		call(SYS_rt_sigaction, signals[i], (u32)&action, 0, 8, 0);
	__asm__ volatile("int3");
	stop(5);
}
