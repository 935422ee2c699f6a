/* A scenario: set up, trace_ready(), the part that is recorded. Returning ends the machine with status 0. */
#ifndef RACETAPE_SCENARIO_H
#define RACETAPE_SCENARIO_H

#include <linux/mm.h>

struct scenario {
	const char *name;
	void (*run)(void);
};

/* Ends with a row without a name. */
extern const struct scenario scenarios[];

void scenario_wrong_zone(void);
void scenario_compact(void);
void scenario_shootdown(void);
void scenario_thp_pressure(void);
void scenario_class_flip(void);
void scenario_collapse(void);
void scenario_compound_publish(void);
void scenario_dirty_bit(void);
void scenario_exit_race(void);
void scenario_mremap_flush(void);
void scenario_soft_offline(void);
void scenario_split(void);
void scenario_vmstat_lost_update(void);
void scenario_window(void);

/* scenarios/arrange.c: set-up, and what an outcome must not be. */
struct zone *user_zone(void);
void hog_zone(enum zone_type type);
struct page *hog_take(unsigned long pfn);
void hog_release(unsigned long start_pfn, unsigned long end_pfn);
void make_lru_page(struct page *page, enum lru_list lru);
struct task_struct *make_task(const char *name, int cpu, void (*entry)(void *), void *argument);
struct page *take_huge_frame(void);
struct page *find_get_mapped(unsigned long address);
void scenario_failed(const char *what) __attribute__((noreturn));

#endif
