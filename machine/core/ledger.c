#include "ledger.h"

#include <stdlib.h>
#include <string.h>

bool ledger_set(struct machine *m, const struct ledger *ledger)
{
	ledger_deinit(m);
	if (!ledger->trace)
		return true;
	struct ledger_sums *sums = calloc(1, sizeof(*sums));
	if (!sums)
		return false;
	m->ledger = *ledger;
	m->ledger.sums = sums;
	return true;
}

void ledger_deinit(struct machine *m)
{
	free(m->ledger.sums);
	m->ledger = (struct ledger){0};
}

void ledger_trace(struct machine *m, const struct cpu *c, const struct op *op)
{
	const struct ledger *l = &m->ledger;
	uint64_t offset = c->s.gpr[op->base] - l->pages, frame = l->first + offset / l->page_size;
	uint32_t said = (uint32_t)c->s.gpr[op->index], item = said >> 24;
	int32_t delta = (int32_t)(said << 8) >> 8;
	if (offset % l->page_size || offset / l->page_size > UINT32_MAX || item >= LEDGER_ITEMS)
		return;
	l->sums->announced |= UINT64_C(1) << item;
	for (uint32_t i = 0; i < l->region_count; i++)
		if (l->regions[i].first <= frame && frame < l->regions[i].end)
			l->sums->sum[i][item] = (int64_t)((uint64_t)l->sums->sum[i][item] + (uint64_t)(int64_t)delta);
}

struct ledger_sums *ledger_save(const struct machine *m, bool *failed)
{
	*failed = false;
	if (!m->ledger.sums)
		return NULL;
	struct ledger_sums *saved = malloc(sizeof(*saved));
	*failed = !saved;
	if (saved)
		*saved = *m->ledger.sums;
	return saved;
}

void ledger_restore(struct machine *m, const struct ledger_sums *saved)
{
	if (!m->ledger.sums)
		return;
	if (saved)
		*m->ledger.sums = *saved;
	else
		memset(m->ledger.sums, 0, sizeof(*m->ledger.sums));
}
