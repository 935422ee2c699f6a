#include "rtc.h"

#include <stdbool.h>

enum { SECONDS = 0, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY, MONTH, YEAR, REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D, CENTURY = 0x32 };

void rtc_reset(struct rtc *rtc)
{
	*rtc = (struct rtc){0};
	rtc->memory[WEEKDAY] = 4; /* Sunday is 1 */
	rtc->memory[DAY] = 0x01;
	rtc->memory[MONTH] = 0x06;
	rtc->memory[YEAR] = 0x11;
	rtc->memory[CENTURY] = 0x20;
	rtc->memory[REGISTER_A] = 0x26; /* 32,768 Hz, no update in progress */
	rtc->memory[REGISTER_B] = 0x02; /* 24 hours, decimal */
	rtc->memory[REGISTER_D] = 0x80; /* the battery is good */
}

uint8_t rtc_read(const struct rtc *rtc, uint32_t port)
{
	return port ? rtc->memory[rtc->index] : 0xff; /* the index cannot be read */
}

void rtc_write(struct rtc *rtc, uint32_t port, uint8_t value)
{
	uint32_t i = rtc->index;
	bool time = i == SECONDS || i == MINUTES || i == HOURS || (i >= WEEKDAY && i <= YEAR) || i == CENTURY;
	if (!port)
		rtc->index = value & (RTC_SIZE - 1); /* bit 7 would mask NMIs */
	else if (!time && i != REGISTER_C && i != REGISTER_D)
		rtc->memory[i] = i == REGISTER_A ? value & 0x7f : value;
}
