#include "choices.h"

#include <stdlib.h>

void choices_append(struct machine *m, uint8_t op, uint8_t cpu, uint16_t flags, uint64_t arg)
{
	struct choice_log *log = &m->choices;
	if (!log->on || log->failed)
		return;
	if (log->count && (op == PLAN_RUN || op == PLAN_DRAIN)) {
		struct plan_record *last = &log->records[log->count - 1];
		if (last->op == op && last->cpu == cpu && (last->flags & PLAN_HOLD) == (flags & PLAN_HOLD)) {
			last->flags |= flags;
			last->arg += arg;
			return;
		}
	}
	if (log->count == log->allocated) {
		size_t allocated = log->allocated ? log->allocated * 2 : 1024;
		struct plan_record *records = realloc(log->records, allocated * sizeof(*records));
		if (!records) {
			log->failed = true;
			return;
		}
		log->records = records;
		log->allocated = allocated;
	}
	log->records[log->count++] = (struct plan_record){.op = op, .cpu = cpu, .flags = flags, .arg = arg};
}
