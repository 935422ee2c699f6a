#include <racetape/scenario.h>

const struct scenario scenarios[] = {
	{ "wrong-zone", scenario_wrong_zone },
	{ "compact", scenario_compact },
	{ "shootdown", scenario_shootdown },
	{ "thp-pressure", scenario_thp_pressure },
#ifdef CONFIG_SMALL
	{ "class-flip", scenario_class_flip },
	{ "collapse", scenario_collapse },
	{ "compound-publish", scenario_compound_publish },
	{ "dirty-bit", scenario_dirty_bit },
	{ "exit-race", scenario_exit_race },
	{ "mremap-flush", scenario_mremap_flush },
	{ "soft-offline", scenario_soft_offline },
	{ "split", scenario_split },
	{ "vmstat-lost-update", scenario_vmstat_lost_update },
	{ "window", scenario_window },
#endif
	{ NULL, NULL },
};
