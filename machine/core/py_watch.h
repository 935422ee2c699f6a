/* The methods of Machine by which a search is told what to look at (shared words, freed pages, ghosts) and finds out what was met. */
#ifndef RACETAPE_PY_WATCH_H
#define RACETAPE_PY_WATCH_H

#include "py_types.h"

PyObject *machine_watch(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *machine_page_pool(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *machine_set_ledger(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *machine_ledger_sum(PyObject *self, PyObject *args);
PyObject *machine_freed_use(PyObject *self, PyObject *unused);
PyObject *machine_weights(PyObject *self, PyObject *args);
PyObject *machine_visible_counts(PyObject *self, PyObject *unused);
PyObject *machine_pairs_take(PyObject *self, PyObject *unused);

#endif
