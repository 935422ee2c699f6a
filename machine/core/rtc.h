/* The real-time clock and its memory. Motorola MC146818, 1984; the century in register 32h as PCs have it.
 *
 * It stands still: 1 June 2011, 0:00:00, a Wednesday, whatever is written there. No interrupts. */
#ifndef RACETAPE_RTC_H
#define RACETAPE_RTC_H

#include <stdint.h>

enum { RTC_SIZE = 128 };

struct rtc {
	uint8_t index; /* of the register that is read and written next */
	uint8_t zero[7];
	uint8_t memory[RTC_SIZE];
};

void rtc_reset(struct rtc *rtc);
/* Port 0 takes the index, port 1 is the register. */
uint8_t rtc_read(const struct rtc *rtc, uint32_t port);
void rtc_write(struct rtc *rtc, uint32_t port, uint8_t value);

#endif
