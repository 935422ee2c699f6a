#include "steps.h"

#include "apic.h"
#include "choices.h"
#include "interrupt.h"
#include "store_buffer.h"
#include "tap.h"
#include "tlb.h"

void step_hold(struct cpu *c, bool hold)
{
	if (c->hold == hold)
		return;
	c->hold = hold;
	cpu_update_fast(c);
}

enum run_end step_run(struct cpu *c, uint64_t step_end, bool stop_at_pause)
{
	struct machine *m = c->machine;
	uint64_t first = m->step;
	c->room_made = false;
	enum run_end end = cpu_run(c, step_end, stop_at_pause);
	uint16_t flags = (c->hold ? PLAN_HOLD : 0) | (c->room_made ? PLAN_ROOM : 0);
	if (m->step != first)
		choices_append(m, PLAN_RUN, (uint8_t)c->number, flags, m->step - first);
	return end;
}

void step_drain(struct cpu *c)
{
	store_buffer_drain_one(c);
	c->machine->step++;
	choices_append(c->machine, PLAN_DRAIN, (uint8_t)c->number, 0, 1);
}

/* From the interrupt controllers of a PC. */
static bool pc_can_deliver(const struct cpu *c, uint64_t vector)
{
	if (!c->machine->pc || !interrupts_open(c) || c->machine->s.ended)
		return false;
	return pc_pending(c) == (int)vector || pc_timer_vector(c) == (int)vector;
}

bool interrupt_possible(const struct cpu *c, uint64_t vector)
{
	if (vector == VECTOR_NMI)
		return nmi_open(c);
	return vector <= 255 && (pc_can_deliver(c, vector) || apic_can_deliver(c, (uint8_t)vector));
}

int pending_interrupt(const struct cpu *c)
{
	if (nmi_open(c))
		return VECTOR_NMI;
	int vector = c->machine->pc ? pc_pending(c) : -1;
	return vector >= 0 ? vector : apic_pending(c);
}

bool interrupt_raised(const struct cpu *c)
{
	return c->s.nmi_pending || apic_raised(c) || (c->machine->pc && pc_raised(c->machine));
}

int timer_vector(const struct cpu *c)
{
	int vector = c->machine->pc ? pc_timer_vector(c) : -1;
	return vector >= 0 ? vector : apic_timer_vector(c);
}

bool step_irq(struct cpu *c, uint64_t vector)
{
	struct machine *m = c->machine;
	if (!interrupt_possible(c, vector))
		return false;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	if (vector == VECTOR_NMI) {
		tap_event(c, EVENT_nmi, 0, 0, 0, 0, 0);
		nmi_accept(c);
	} else {
		tap_event(c, EVENT_interrupt, 0, 0, 0, 0, (uint32_t)vector);
		if (pc_can_deliver(c, vector))
			pc_accept(c, (uint8_t)vector);
		else
			apic_accept(c, (uint8_t)vector);
	}
	if (interrupt_deliver(c, (uint8_t)vector, SOURCE_EXTERNAL, false, 0) != STATUS_OK)
		exception_deliver(c);
	m->step++;
	choices_append(m, PLAN_IRQ, (uint8_t)c->number, 0, vector);
	return true;
}

bool step_choice(struct cpu *c, uint64_t answer)
{
	struct machine *m = c->machine;
	if (c->s.waiting != WAIT_CHOICE || answer >= c->s.choice_count)
		return false;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	tap_event(c, EVENT_choice, c->s.choice_count, 0, answer, 0, 0);
	c->s.choice_answer = (uint32_t)answer;
	c->s.waiting = WAIT_NONE;
	m->step++;
	choices_append(m, PLAN_CHOICE, (uint8_t)c->number, 0, answer);
	return true;
}

bool step_evict(struct cpu *c, uint64_t page)
{
	struct machine *m = c->machine;
	c->pc = (c->view[CS].base + c->s.rip) & c->linear_mask;
	if (!tlb_evict(c, page))
		return false;
	m->step++;
	choices_append(m, PLAN_EVICT, (uint8_t)c->number, 0, page);
	return true;
}
