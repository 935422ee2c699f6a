/* The first user process of a recorded Linux: no libc, system calls by INT 80h.
 *
 * It says that it is there, touches memory in the ways that the kernel has to work for, shows a little of /proc, and restarts
 * the machine, which is how a run ends (docs/platform.md). What it prints does not depend on time. */
typedef unsigned int u32;

enum {
	SYS_exit = 1, SYS_fork = 2, SYS_read = 3, SYS_write = 4, SYS_open = 5, SYS_close = 6, SYS_waitpid = 7, SYS_mkdir = 39, SYS_mount = 21,
	SYS_reboot = 88, SYS_munmap = 91, SYS_mmap2 = 192, SYS_madvise = 219,
};
enum { PAGE = 4096, HUGE = 4 << 20, PROT_READ_WRITE = 3, MAP_PRIVATE_ANONYMOUS = 0x22, MADV_DONTNEED = 4 };

static long call(long number, long a, long b, long c, long d, long e)
{
	long result;
	__asm__ volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp"
			 : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
	return result;
}

static void say(const char *text)
{
	long length = 0;
	while (text[length])
		length++;
	call(SYS_write, 1, (long)text, length, 0, 0);
}

static void say_number(const char *what, u32 value)
{
	char digits[12];
	int at = sizeof(digits) - 1;
	digits[at] = 0;
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	say(what);
	say(digits + at);
	say("\n");
}

/* Lines of a file, from its beginning, as many as asked for. */
static void show(const char *path, int lines)
{
	static char text[1024];
	long file = call(SYS_open, (long)path, 0, 0, 0, 0), length = file < 0 ? 0 : call(SYS_read, file, (long)text, sizeof(text) - 1, 0, 0);
	for (long i = 0; i < length; i++)
		if (text[i] == '\n' && --lines <= 0)
			length = i + 1;
	text[length > 0 ? length : 0] = 0;
	say(length > 0 ? text : "nothing to read\n");
	if (file >= 0)
		call(SYS_close, file, 0, 0, 0, 0);
}

static volatile char *map(u32 size)
{
	long addr = call(SYS_mmap2, 0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1);
	if ((unsigned long)addr > -(unsigned long)PAGE) {
		say("mmap failed\n");
		return 0;
	}
	return (volatile char *)addr;
}

/* One byte of each page gets the page's number; the sum of what is read back. */
static u32 touch(volatile char *memory, u32 size)
{
	u32 sum = 0;
	for (u32 at = 0; at < size; at += PAGE)
		memory[at] = (char)(at / PAGE);
	for (u32 at = 0; at < size; at += PAGE)
		sum += (unsigned char)memory[at];
	return sum;
}

static void memory(void)
{
	volatile char *small = map(64 * PAGE), *huge = map(2 * HUGE);
	if (!small || !huge)
		return;
	say_number("small pages: ", touch(small, 64 * PAGE));
	say_number("huge pages: ", touch(huge, 2 * HUGE));
	long child = call(SYS_fork, 0, 0, 0, 0, 0);
	if (!child) { /* copies what it writes to */
		huge[0] = 99;
		small[0] = 98;
		call(SYS_exit, huge[0] == 99 && huge[PAGE] == 1 ? 7 : 1, 0, 0, 0, 0);
	}
	int status = 0;
	call(SYS_waitpid, child, (long)&status, 0, 0, 0);
	say_number("child's exit status: ", (u32)status >> 8);
	say_number("parent's page is its own: ", huge[0] == 0 && small[0] == 0);
	call(SYS_madvise, (long)small, 64 * PAGE, MADV_DONTNEED, 0, 0);
	say_number("after MADV_DONTNEED: ", (u32)small[PAGE]);
	call(SYS_munmap, (long)huge, 2 * HUGE, 0, 0, 0);
}

__attribute__((noreturn)) void _start(void)
{
	say("init: hello from user space\n");
	memory();
	call(SYS_mkdir, (long)"/proc", 0555, 0, 0, 0);
	call(SYS_mount, (long)"proc", (long)"/proc", (long)"proc", 0, 0);
	show("/proc/meminfo", 1);
	say("init: restart\n");
	call(SYS_reboot, (long)0xfee1dead, 672274793, 0x01234567, 0, 0);
	for (;;)
		;
}
