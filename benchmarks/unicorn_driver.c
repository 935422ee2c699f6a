/*
 * The peer: the unicorn emulator driven from C, the way that costs it least.
 *
 * usage: unicorn_driver LOAD RAM_BYTES ENTRY UNTIL MODE [DUMP]
 *   LOAD       what to put into memory: records of u64 physical address, u64 size, bytes
 *   ENTRY      physical address of the first instruction, UNTIL: linear address at which to stop
 *   MODE       plain: no hooks. hooks: every instruction, load and store is appended to a ring, with the stored but not
 *              the loaded value. values: also the loaded value, which needs another hook.
 *   DUMP       file for the RAM afterwards
 * Prints CPU seconds of the run, instructions (0 if plain) and accesses seen.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <unicorn/unicorn.h>

enum { RING_ROWS = 1 << 16, BOOT_PARAMS = 0x10000, APIC_BASE = 0xfee00000, CHUNK_BYTES = 1 << 20 };

/* 24 bytes; the instruction hook only keeps the address for the accesses that follow. */
struct row {
	uint64_t address;
	uint64_t value;
	uint32_t pc;
	uint16_t kind;
	uint16_t size;
};

static struct row ring[RING_ROWS];
static uint64_t row_count, instruction_count;
static uint32_t pc;

static void on_code(uc_engine *uc, uint64_t address, uint32_t size, void *user)
{
	(void)uc, (void)size, (void)user;
	pc = (uint32_t)address;
	instruction_count++;
}

static void on_access(uc_engine *uc, uc_mem_type type, uint64_t address, int size, int64_t value, void *user)
{
	(void)uc, (void)user;
	ring[row_count++ % RING_ROWS] = (struct row){address, (uint64_t)value, pc, (uint16_t)type, (uint16_t)size};
}

static void check(uc_err error, const char *what)
{
	if (error == UC_ERR_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, uc_strerror(error));
	exit(1);
}

static void load(uc_engine *uc, const char *path)
{
	FILE *f = fopen(path, "rb");
	uint64_t head[2];

	if (!f) {
		perror(path);
		exit(1);
	}
	while (fread(head, sizeof head, 1, f) == 1) {
		void *bytes = malloc(head[1]);
		if (!bytes || fread(bytes, 1, head[1], f) != head[1]) {
			fprintf(stderr, "%s is cut\n", path);
			exit(1);
		}
		check(uc_mem_write(uc, head[0], bytes, head[1]), "uc_mem_write");
		free(bytes);
	}
	fclose(f);
}

static void dump(uc_engine *uc, const char *path, uint64_t ram_bytes)
{
	static char chunk[CHUNK_BYTES];
	FILE *f = fopen(path, "wb");

	for (uint64_t at = 0; f && at < ram_bytes; at += CHUNK_BYTES) {
		check(uc_mem_read(uc, at, chunk, CHUNK_BYTES), "uc_mem_read");
		if (fwrite(chunk, 1, CHUNK_BYTES, f) != CHUNK_BYTES)
			break;
	}
	if (!f || fclose(f)) {
		perror(path);
		exit(1);
	}
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: unicorn_driver LOAD RAM_BYTES ENTRY UNTIL MODE [DUMP]\n");
		return 2;
	}
	uint64_t ram_bytes = strtoull(argv[2], NULL, 0), entry = strtoull(argv[3], NULL, 0);
	uint64_t until = strtoull(argv[4], NULL, 0);
	uc_engine *uc;
	uc_hook code, stores, loads;
	uint32_t esi = BOOT_PARAMS, eflags = 2;
	uint64_t rip = 0;

	check(uc_open(UC_ARCH_X86, UC_MODE_32, &uc), "uc_open");
	check(uc_mem_map(uc, 0, ram_bytes, UC_PROT_ALL), "uc_mem_map");
	check(uc_mem_map(uc, APIC_BASE, 4096, UC_PROT_ALL), "uc_mem_map");
	load(uc, argv[1]);
	check(uc_reg_write(uc, UC_X86_REG_ESI, &esi), "uc_reg_write");
	check(uc_reg_write(uc, UC_X86_REG_EFLAGS, &eflags), "uc_reg_write");
	if (strcmp(argv[5], "plain")) {
		int read_hook = strcmp(argv[5], "values") ? UC_HOOK_MEM_READ : UC_HOOK_MEM_READ_AFTER;
		check(uc_hook_add(uc, &code, UC_HOOK_CODE, (void *)on_code, NULL, 1, 0), "uc_hook_add");
		check(uc_hook_add(uc, &stores, UC_HOOK_MEM_WRITE, (void *)on_access, NULL, 1, 0), "uc_hook_add");
		check(uc_hook_add(uc, &loads, read_hook, (void *)on_access, NULL, 1, 0), "uc_hook_add");
	}
	memset(ring, 1, sizeof ring); /* Fresh pages would be charged to the first rows. */
	double start = cpu_seconds();
	check(uc_emu_start(uc, entry, until, 0, 0), "uc_emu_start");
	double seconds = cpu_seconds() - start;
	check(uc_reg_read(uc, UC_X86_REG_EIP, &rip), "uc_reg_read");
	if ((uint32_t)rip != (uint32_t)until) {
		fprintf(stderr, "stopped at %#" PRIx64 "\n", rip);
		return 1;
	}
	printf("%.9f %" PRIu64 " %" PRIu64 "\n", seconds, instruction_count, row_count);
	if (argc > 6)
		dump(uc, argv[6], ram_bytes);
	uc_close(uc);
	return 0;
}
