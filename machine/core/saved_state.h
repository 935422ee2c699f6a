/* Everything but RAM as bytes, for checkpoints on a tape. */
#ifndef RACETAPE_SAVED_STATE_H
#define RACETAPE_SAVED_STATE_H

#include "machine.h"

/* Of the layout, and of what the state hash is made of: to be raised whenever struct cpu_state or platform_state change. */
enum { STATE_VERSION = 4 };

enum saved_state_result { SAVED_STATE_OK, SAVED_STATE_INVALID, SAVED_STATE_NO_MEMORY };

size_t saved_state_size(const struct machine *m);
/* Writes saved_state_size() bytes. */
void saved_state_write(struct machine *m, uint8_t *to);
/* Bytes from anywhere; the machine is unchanged unless the result is SAVED_STATE_OK. */
enum saved_state_result saved_state_read(struct machine *m, const uint8_t *from, size_t size);

#endif
