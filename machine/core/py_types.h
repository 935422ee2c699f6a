/* What the files of the Python face share: one file per Python type, py_watch.c, and module.c. They translate, and decide nothing.
 * Written against the limited API of Python 3.11. */
#ifndef RACETAPE_PY_TYPES_H
#define RACETAPE_PY_TYPES_H

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "machine.h"

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

struct module_state {
	PyTypeObject *machine_type;
	PyTypeObject *snapshot_type;
	PyTypeObject *column_type;
	PyTypeObject *explorer_type;
};

struct machine_object {
	PyObject_HEAD
	struct machine *machine;
	bool executing;	    /* without holding the interpreter's lock */
};

struct snapshot_object {
	PyObject_HEAD
	struct machine_object *owner;
	struct snapshot *snapshot;
};

/* One column of the tap, as a buffer that keeps its rows, and the machine whose they are. */
struct column_object {
	PyObject_HEAD
	struct machine_object *owner;
	struct event_block *block;
	void *data;
	Py_ssize_t shape;
	Py_ssize_t item_size;
	Py_ssize_t stride; /* bytes from element to element */
};

struct explorer;

struct explorer_object {
	PyObject_HEAD
	struct machine_object *owner;
	struct explorer *explorer;
	enum shared_scope scope;
	bool bounded;
	uint64_t changes; /* of the set of shared words that it goes by */
};

extern PyType_Spec column_spec, snapshot_spec, machine_spec, explorer_spec;

static inline struct module_state *state_of(PyObject *self)
{
	return PyType_GetModuleState(Py_TYPE(self));
}

static inline struct machine *machine_of(PyObject *self)
{
	return ((struct machine_object *)self)->machine;
}

/* Converter for "O&": a number that does not fit is refused, not cut as "K" and "k" would. */
static inline int to_u64(PyObject *object, void *ret)
{
	unsigned long long value = PyLong_AsUnsignedLongLong(object);
	if (PyErr_Occurred()) {
		if (PyErr_ExceptionMatches(PyExc_OverflowError))
			PyErr_SetString(PyExc_ValueError, "a number is negative or has more than 64 bits");
		return 0;
	}
	*(unsigned long long *)ret = value;
	return 1;
}

/* Other threads run while the machine `self` executes; they may not use that machine. */
static inline bool executing(PyObject *self)
{
	if (!((struct machine_object *)self)->executing)
		return false;
	PyErr_SetString(PyExc_RuntimeError, "the machine is executing in another thread");
	return true;
}

/* The end of every type's dealloc. */
static inline void object_free(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(self);
	Py_DECREF(type);
}

/* A memoryview of one column of `block`, which is or was the tap's of the machine `owner`. */
PyObject *column_create(PyObject *owner, struct event_block *block, void *data, size_t count, size_t item_size);
/* Why execution stopped, as text. */
extern const char *const stop_names[];
/* Takes a snapshot of the machine `owner`. */
PyObject *snapshot_create(PyObject *owner);

#endif
