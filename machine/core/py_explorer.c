#include "explore.h"
#include "py_types.h"

static struct explorer_object *explorer_object_of(PyObject *self)
{
	return (struct explorer_object *)self;
}

static bool busy(PyObject *self)
{
	return executing((PyObject *)explorer_object_of(self)->owner);
}

/* What was found out holds for the same shared words only. */
static bool usable(const struct explorer_object *object)
{
	const struct machine *m = object->owner->machine;
	if (!m->tap.on && m->watch.changes[object->scope] == object->changes)
		return true;
	PyErr_SetString(PyExc_ValueError, "a search needs the shared words as they were, and the tap off");
	return false;
}

static PyObject *explorer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"machine", "bounded", "tasks", "eager", "bound", "ticks", "frames_max", "step_max", NULL};
	struct module_state *state = PyType_GetModuleState(type);
	PyObject *machine;
	int bounded = 0, tasks = 0, eager = 0;
	unsigned int bound = 0, ticks = 0, frames_max = 1 << 16;
	unsigned long long step_max = UINT64_MAX;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$pppIIIK", names, state->machine_type, &machine, &bounded, &tasks, &eager, &bound,
					 &ticks, &frames_max, &step_max))
		return NULL;
	struct machine *m = machine_of(machine);
	if (executing(machine))
		return NULL;
	enum shared_scope scope = tasks ? SHARED_TASKS : SHARED_CPUS;
	if (!m->watch.sets[scope].words || m->tap.on) {
		PyErr_SetString(PyExc_ValueError, "a search needs to know the shared words, and the tap off");
		return NULL;
	}
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct explorer_object *object = (struct explorer_object *)alloc(type, 0);
	if (!object)
		return NULL;
	Py_INCREF(machine);
	object->owner = (struct machine_object *)machine;
	object->scope = scope;
	object->bounded = bounded;
	object->changes = m->watch.changes[scope];
	struct explore_options options = {
		.mode = bounded ? EXPLORE_BOUNDED : EXPLORE_DPOR,
		.scope = scope,
		.eager = eager,
		.bound = bound,
		.ticks = ticks < UINT8_MAX ? ticks : UINT8_MAX,
		.frames_max = frames_max,
		.step_max = step_max,
	};
	object->explorer = explorer_create(m, &options);
	if (!object->explorer) {
		Py_DECREF((PyObject *)object);
		return PyErr_NoMemory();
	}
	return (PyObject *)object;
}

static void explorer_dealloc(PyObject *self)
{
	struct explorer_object *object = explorer_object_of(self);
	explorer_destroy(object->explorer);
	Py_XDECREF((PyObject *)object->owner);
	object_free(self);
}

static PyObject *explorer_next_py(PyObject *self, PyObject *unused)
{
	(void)unused;
	struct explorer_object *object = explorer_object_of(self);
	if (busy(self))
		return NULL;
	if (!usable(object))
		return NULL;
	enum stop stop = STOP_plan;
	enum explore_result result;
	object->owner->executing = true;
	Py_BEGIN_ALLOW_THREADS
	result = explorer_next(object->explorer, &stop);
	Py_END_ALLOW_THREADS
	object->owner->executing = false;
	if (result == EXPLORE_NO_MEMORY || object->owner->machine->choices.failed || object->owner->machine->pool.failed)
		return PyErr_NoMemory();
	if (result == EXPLORE_DONE)
		Py_RETURN_NONE;
	if (result == EXPLORE_LOOK)
		return PyUnicode_FromString("");
	return PyUnicode_FromString(stop_names[stop]);
}

static PyObject *explorer_descend_py(PyObject *self, PyObject *args)
{
	struct explorer_object *object = explorer_object_of(self);
	unsigned long long seed;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &seed) || busy(self) || !usable(object))
		return NULL;
	if (object->bounded || explorer_started(object->explorer)) {
		PyErr_SetString(PyExc_ValueError, "descents are made before the first run, and not in a bounded search");
		return NULL;
	}
	double estimate = 0;
	enum explore_result result;
	object->owner->executing = true;
	Py_BEGIN_ALLOW_THREADS
	result = explorer_descend(object->explorer, seed, &estimate);
	Py_END_ALLOW_THREADS
	object->owner->executing = false;
	if (result == EXPLORE_NO_MEMORY || object->owner->machine->choices.failed)
		return PyErr_NoMemory();
	return PyFloat_FromDouble(estimate);
}

static PyObject *explorer_repeat_py(PyObject *self, PyObject *unused)
{
	(void)unused;
	if (busy(self) || !usable(explorer_object_of(self)))
		return NULL;
	return PyUnicode_FromString(stop_names[explorer_repeat(explorer_object_of(self)->explorer)]);
}

static PyObject *explorer_path_py(PyObject *self, PyObject *unused)
{
	(void)unused;
	if (busy(self))
		return NULL;
	const struct explorer *e = explorer_object_of(self)->explorer;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)explorer_path(e, NULL));
	if (bytes)
		explorer_path(e, (uint8_t *)PyBytes_AsString(bytes));
	return bytes;
}

enum count { RUNS, BLOCKED, STEPS_MADE, STEPS_SHARED, DEPTH, DEVIATIONS };

static PyObject *explorer_get(PyObject *self, void *closure)
{
	const struct explore_counts *counts = explorer_counts(explorer_object_of(self)->explorer);
	switch ((enum count)(uintptr_t)closure) {
	case RUNS: return PyLong_FromUnsignedLongLong(counts->runs);
	case BLOCKED: return PyLong_FromUnsignedLongLong(counts->blocked);
	case STEPS_MADE: return PyLong_FromUnsignedLongLong(counts->steps_made);
	case STEPS_SHARED: return PyLong_FromUnsignedLongLong(counts->steps_shared);
	case DEPTH: return PyLong_FromUnsignedLong(counts->depth);
	case DEVIATIONS: return PyLong_FromUnsignedLong(counts->deviations);
	}
	PyErr_SetString(PyExc_SystemError, "unknown attribute");
	return NULL;
}

static PyObject *explorer_cut(PyObject *self, void *closure)
{
	(void)closure;
	static const char *const names[] = {"", "a run has too many visible steps", "interrupts are pending",
					    "a CPU waits for an answer",
					    "others could notice something that was no choice",
					    "pages with shared words are freed"};
	return PyUnicode_FromString(names[explorer_counts(explorer_object_of(self)->explorer)->cut]);
}

#define COUNT(name, which) {name, explorer_get, NULL, NULL, (void *)(uintptr_t)(which)}
static PyGetSetDef explorer_getset[] = {
	COUNT("runs", RUNS),
	COUNT("blocked", BLOCKED),
	COUNT("steps_made", STEPS_MADE),
	COUNT("steps_shared", STEPS_SHARED),
	COUNT("depth", DEPTH),
	COUNT("deviations", DEVIATIONS),
	{"cut", explorer_cut, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef explorer_methods[] = {
	{"next", explorer_next_py, METH_NOARGS, "Make the next run; see _core.pyi."},
	{"descend", explorer_descend_py, METH_VARARGS, "One random descent; see _core.pyi."},
	{"repeat", explorer_repeat_py, METH_NOARGS, "Make the last run again from its beginning."},
	{"path", explorer_path_py, METH_NOARGS, "The agents of the last run's visible steps."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot explorer_slots[] = {
	{Py_tp_new, explorer_new},
	{Py_tp_dealloc, explorer_dealloc},
	{Py_tp_methods, explorer_methods},
	{Py_tp_getset, explorer_getset},
	{Py_tp_doc, "A systematic search; see _core.pyi."},
	{0, NULL},
};

PyType_Spec explorer_spec = {
	.name = "machine._core.Explorer",
	.basicsize = sizeof(struct explorer_object),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = explorer_slots,
};
