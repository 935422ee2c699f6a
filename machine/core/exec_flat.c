/* The handlers of exec_*.c a third time, for direct accesses by the simplest addresses: see `struct handlers`. */
#define ADDRESS_FLAT
#include "exec_direct.c"
