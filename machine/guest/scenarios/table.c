#include <racetape/scenario.h>

const struct scenario scenarios[] = {
	{ "wrong-zone", scenario_wrong_zone },
	{ "compact", scenario_compact },
	{ "shootdown", scenario_shootdown },
	{ "thp-pressure", scenario_thp_pressure },
#ifdef CONFIG_SMALL
	{ "window", scenario_window },
#endif
	{ NULL, NULL },
};
