#include "py_watch.h"

#include "ledger.h"
#include "pool.h"
#include "visible.h"

PyObject *machine_watch(PyObject *self, PyObject *args, PyObject *kwargs)
{
	if (executing(self))
		return NULL;
	static char *names[] = {"words", "tasks", NULL};
	struct machine *m = machine_of(self);
	PyObject *object;
	int tasks = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p", names, &object, &tasks))
		return NULL;
	enum shared_scope scope = tasks ? SHARED_TASKS : SHARED_CPUS;
	bool done;
	if (object == Py_None) {
		done = visible_set(m, scope, NULL);
	} else {
		Py_buffer view;
		if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
			return NULL;
		bool fits = (uint64_t)view.len == m->memory.size_bytes / 32;
		done = fits && visible_set(m, scope, view.buf);
		PyBuffer_Release(&view);
		if (!fits)
			return PyErr_Format(PyExc_ValueError, "a bit for each 4 bytes of RAM: %llu bytes",
					    (unsigned long long)m->memory.size_bytes / 32);
	}
	if (!done)
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

PyObject *machine_page_pool(PyObject *self, PyObject *args, PyObject *kwargs)
{
	if (executing(self))
		return NULL;
	static char *names[] = {"pages", "page_bytes", "first_frame", "frame_count", "alloc", "free", NULL};
	unsigned long long pages, page_size, first, count, alloc, free;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&O&O&O&O&", names, to_u64, &pages, to_u64, &page_size, to_u64, &first,
					 to_u64, &count, to_u64, &alloc, to_u64, &free))
		return NULL;
	struct machine *m = machine_of(self);
	if (first > m->memory.page_count || count > m->memory.page_count - first)
		return PyErr_Format(PyExc_ValueError, "RAM has only %lu frames", (unsigned long)m->memory.page_count);
	if (!page_size || !alloc || alloc > 0xffff || !free || free > 0xffff || alloc == free) {
		PyErr_SetString(PyExc_ValueError, "a page has bytes, and two tracepoints of 1 to 0xffff");
		return NULL;
	}
	const struct pool pool = {.pages = pages, .page_size = page_size, .first = (uint32_t)first, .count = (uint32_t)count,
				  .alloc = (uint32_t)alloc, .free = (uint32_t)free};
	if (!pool_set(m, &pool))
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

PyObject *machine_set_ledger(PyObject *self, PyObject *args, PyObject *kwargs)
{
	if (executing(self))
		return NULL;
	static char *names[] = {"trace", "pages", "page_bytes", "first_frame", "regions", NULL};
	unsigned long long trace, pages, page_size, first;
	PyObject *regions;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&O&O&O", names, to_u64, &trace, to_u64, &pages, to_u64, &page_size, to_u64,
					 &first, &regions))
		return NULL;
	Py_ssize_t count = PySequence_Size(regions);
	if (count < 0)
		return NULL;
	if (count > LEDGER_REGIONS || trace > 0xffff || !page_size || first > UINT32_MAX)
		return PyErr_Format(PyExc_ValueError, "at most %d regions, a tracepoint up to 0xffff, pages that have bytes", LEDGER_REGIONS);
	struct ledger ledger = {.trace = (uint32_t)trace, .first = (uint32_t)first, .pages = pages, .page_size = page_size,
				.region_count = (uint32_t)count};
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *region = PySequence_GetItem(regions, i);
		int done = region && PyTuple_Check(region) &&
			   PyArg_ParseTuple(region, "II", &ledger.regions[i].first, &ledger.regions[i].end);
		Py_XDECREF(region);
		if (!done) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_TypeError, "a region is a tuple: its first frame, and the one behind its last");
			return NULL;
		}
	}
	if (!ledger_set(machine_of(self), &ledger))
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

PyObject *machine_ledger_sum(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned int region, item;
	if (!PyArg_ParseTuple(args, "II", &region, &item))
		return NULL;
	const struct ledger *ledger = &machine_of(self)->ledger;
	if (!ledger->sums || region >= ledger->region_count || item >= LEDGER_ITEMS)
		Py_RETURN_NONE;
	if (!(ledger->sums->announced >> item & 1))
		Py_RETURN_NONE;
	return PyLong_FromLongLong(ledger->sums->sum[region][item]);
}

PyObject *machine_freed_use(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	static const char *const names[] = {"", "load", "store", "drain", "walk", "fetch", "free"};
	const struct pool *pool = &machine_of(self)->pool;
	const struct pool_use *use = pool->use.access ? &pool->use : &pool->met;
	if (!use->access)
		Py_RETURN_NONE;
	return Py_BuildValue("sIKKKKIK", names[use->access], use->cpu, (unsigned long long)use->pc, (unsigned long long)use->addr,
			     (unsigned long long)use->phys, (unsigned long long)use->step, use->freed_by,
			     (unsigned long long)use->freed_step);
}

PyObject *machine_weights(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	PyObject *list;
	if (!PyArg_ParseTuple(args, "O", &list))
		return NULL;
	uint32_t weights[AGENT_COUNT];
	if (PySequence_Size(list) != AGENT_COUNT) {
		if (!PyErr_Occurred())
			PyErr_Format(PyExc_ValueError, "one number for each of %d agents", AGENT_COUNT);
		return NULL;
	}
	for (int i = 0; i < AGENT_COUNT; i++) {
		PyObject *item = PySequence_GetItem(list, i);
		unsigned long value = item ? PyLong_AsUnsignedLong(item) : 0;
		Py_XDECREF(item);
		if (PyErr_Occurred())
			return NULL;
		weights[i] = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
	}
	memcpy(machine_of(self)->pick.weights, weights, sizeof(weights));
	Py_RETURN_NONE;
}

PyObject *machine_visible_counts(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	const struct classes *classes = &machine_of(self)->classes;
	PyObject *list = PyList_New(0);
	for (int i = 0; list && i < AGENT_COUNT; i++) {
		PyObject *count = PyLong_FromUnsignedLongLong(classes->count[i]);
		if (!count || PyList_Append(list, count) < 0)
			Py_CLEAR(list);
		Py_XDECREF(count);
	}
	return list;
}

PyObject *machine_pairs_take(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct classes *classes = &machine_of(self)->classes;
	PyObject *bytes = PyBytes_FromStringAndSize((const char *)classes->pairs, sizeof(classes->pairs));
	if (bytes)
		memset(classes->pairs, 0, sizeof(classes->pairs));
	return bytes;
}
