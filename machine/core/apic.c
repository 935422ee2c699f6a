#include "apic.h"

#include "access.h"
#include "interrupt.h"

enum apic_register {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_TPR = 0x80,
	APIC_EOI = 0xb0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100,
	APIC_IRR = 0x200,
	APIC_ICR_LOW = APIC_ICR,
	APIC_ICR_HIGH = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_TIMER_INITIAL = 0x380,
};

enum { LVT_MASKED = 1 << 16, DELIVERY_FIXED = 0, DELIVERY_NMI = 4, DELIVERY_STARTUP = 6, APIC_VERSION_VALUE = 0x00050014 };

static bool bit_get(const uint32_t bits[8], uint32_t n) { return bits[n / 32] >> n % 32 & 1; }
static void bit_set(uint32_t bits[8], uint32_t n) { bits[n / 32] |= 1u << n % 32; }
static void bit_clear(uint32_t bits[8], uint32_t n) { bits[n / 32] &= ~(1u << n % 32); }

static int highest(const uint32_t bits[8])
{
	for (int i = 7; i >= 0; i--)
		if (bits[i])
			return i * 32 + 31 - __builtin_clz(bits[i]);
	return -1;
}

static bool priority_accepts(const struct cpu *c, uint32_t vector)
{
	int serving = highest(c->s.apic.isr);
	uint32_t class = serving < 0 ? 0 : (uint32_t)serving >> 4;
	uint32_t task = c->s.apic.tpr >> 4 & 15;
	return vector >> 4 > (class > task ? class : task);
}

int apic_timer_vector(const struct cpu *c)
{
	const struct apic *apic = &c->s.apic;
	bool armed = apic->timer_initial && !(apic->lvt_timer & LVT_MASKED);
	return armed && (apic->lvt_timer & 0xff) >= 16 ? (int)(apic->lvt_timer & 0xff) : -1;
}

bool apic_can_deliver(const struct cpu *c, uint8_t vector)
{
	bool raised = bit_get(c->s.apic.irr, vector) || apic_timer_vector(c) == vector;
	return raised && interrupts_open(c) && priority_accepts(c, vector) && !c->machine->s.ended;
}

int apic_pending(const struct cpu *c)
{
	int vector = highest(c->s.apic.irr);
	return vector >= 0 && apic_can_deliver(c, (uint8_t)vector) ? vector : -1;
}

bool apic_raised(const struct cpu *c)
{
	return highest(c->s.apic.irr) >= 0;
}

void apic_accept(struct cpu *c, uint8_t vector)
{
	bit_clear(c->s.apic.irr, vector);
	bit_set(c->s.apic.isr, vector);
	if (c->s.waiting == WAIT_HALT)
		c->s.waiting = WAIT_NONE;
}

static void send_to(struct cpu *from, struct cpu *to, uint32_t icr)
{
	uint8_t vector = (uint8_t)icr;
	uint32_t delivery = icr >> 8 & 7;
	tap_event(from, EVENT_ipi, to->number, 0, icr, 0, vector);
	if ((delivery == DELIVERY_FIXED && vector >= 16) || delivery == DELIVERY_NMI) {
		if (delivery == DELIVERY_NMI)
			to->s.nmi_pending = 1;
		else
			bit_set(to->s.apic.irr, vector);
		if (to == from)
			from->machine->run_end = from->machine->step; /* the caller decides when it is delivered */
	} else if (delivery == DELIVERY_STARTUP && to->s.waiting == WAIT_START) {
		cpu_start(to, (uint64_t)vector << PAGE_SHIFT);
		to->pc = from->pc; /* the instruction that caused it, and nothing left over from an earlier run */
		tap_event(to, EVENT_start, (uint64_t)vector << PAGE_SHIFT, 0, 0, 0, 0);
	}
	/* INIT has no effect: a CPU that waits is already as INIT leaves it, and a running one is never reset. */
}

static void send(struct cpu *c, uint32_t icr)
{
	struct machine *m = c->machine;
	uint32_t shorthand = icr >> 18 & 3, destination = c->s.apic.icr_high >> 24;
	for (uint32_t i = 0; i < m->cpu_count; i++) {
		bool self = i == c->number;
		bool addressed = shorthand == 0 ? i == destination : shorthand == 1 ? self : shorthand == 2 || !self;
		if (addressed)
			send_to(c, &m->cpus[i], icr);
	}
}

static bool in_apic(uint64_t phys)
{
	return phys >= APIC_BASE && phys < APIC_BASE + PAGE_SIZE;
}

void apic_read(struct cpu *c, uint64_t phys, uint32_t size, uint64_t *ret)
{
	const struct apic *apic = &c->s.apic;
	*ret = size_mask(size);
	if (!in_apic(phys) || size != 4 || phys & 15)
		return;
	uint32_t offset = (uint32_t)(phys - APIC_BASE);
	switch (offset) {
	case APIC_ID: *ret = c->number << 24; return;
	case APIC_VERSION: *ret = APIC_VERSION_VALUE; return;
	case APIC_TPR: *ret = apic->tpr; return;
	case APIC_SVR: *ret = apic->svr; return;
	case APIC_ICR_LOW: *ret = apic->icr_low; return;
	case APIC_ICR_HIGH: *ret = apic->icr_high; return;
	case APIC_LVT_TIMER: *ret = apic->lvt_timer; return;
	case APIC_TIMER_INITIAL: *ret = apic->timer_initial; return;
	default: break;
	}
	if (offset >= APIC_ISR && offset < APIC_ISR + 0x80)
		*ret = apic->isr[(offset - APIC_ISR) / 16];
	else if (offset >= APIC_IRR && offset < APIC_IRR + 0x80)
		*ret = apic->irr[(offset - APIC_IRR) / 16];
	else
		*ret = 0;
}

void apic_write(struct cpu *c, uint64_t phys, uint32_t size, uint64_t value)
{
	struct apic *apic = &c->s.apic;
	uint32_t word = (uint32_t)value;
	if (!in_apic(phys) || size != 4 || phys & 15)
		return;
	switch ((uint32_t)(phys - APIC_BASE)) {
	case APIC_TPR: apic->tpr = word & 0xff; return;
	case APIC_SVR: apic->svr = word; return;
	case APIC_LVT_TIMER: apic->lvt_timer = word; return;
	case APIC_TIMER_INITIAL: apic->timer_initial = word; return;
	case APIC_ICR_HIGH: apic->icr_high = word; return;
	case APIC_ICR_LOW:
		apic->icr_low = word & ~(1u << 12); /* delivery status: always idle */
		send(c, word);
		return;
	case APIC_EOI: {
		int serving = highest(apic->isr);
		if (serving >= 0)
			bit_clear(apic->isr, (uint32_t)serving);
		return;
	}
	default: return;
	}
}
