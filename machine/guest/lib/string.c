/* Memory, text, the debug console, the command line. */
#include <linux/kernel.h>
#include <racetape/ports.h>

extern const struct boot_params *boot_params;

void *memset(void *to, int byte, size_t count)
{
	void *at = to;

	asm volatile("cld; rep; stosb" : "+D" (at), "+c" (count) : "a" (byte) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
	void *at = to;

	asm volatile("cld; rep; movsb" : "+D" (at), "+S" (from), "+c" (count) : : "memory");
	return to;
}

void printk(const char *text)
{
	for (; *text; text++)
		outb(*text, PORT_CONSOLE);
}

void printk_hex(const char *label, unsigned long value)
{
	printk(label);
	for (int shift = 8 * (int)sizeof(value) - 4; shift >= 0; shift -= 4)
		outb("0123456789abcdef"[(value >> shift) & 15], PORT_CONSOLE);
}

/* Find "name=value" among the words of the command line. */
bool parse_option(const char *name, char *value, size_t size)
{
	const char *at = boot_params->command_line;

	while (*at) {
		const char *want = name;

		while (*want && *at == *want)
			at++, want++;
		if (!*want && *at == '=') {
			size_t length = 0;

			for (at++; *at && *at != ' ' && length + 1 < size; at++)
				value[length++] = *at;
			value[length] = '\0';
			return true;
		}
		while (*at && *at != ' ')
			at++;
		while (*at == ' ')
			at++;
	}
	return false;
}

/* A number with K, M or G behind it. */
u32 memparse(const char *text)
{
	u32 value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (*text - '0');
	switch (*text) {
	case 'G':
		return value << 30;
	case 'M':
		return value << 20;
	case 'K':
		return value << 10;
	default:
		return value;
	}
}
