/* The handlers of exec_*.c once more, for accesses that take the direct path: see `struct handlers`. */
#define ACCESS_DIRECT
#include "exec_alu.c"
#include "exec_bits.c"
#include "exec_data.c"
#include "exec_flow.c"
