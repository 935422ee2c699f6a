#include <racetape/scenario.h>

const struct scenario scenarios[] = {
	{ "wrong-zone", scenario_wrong_zone },
	{ NULL, NULL },
};
