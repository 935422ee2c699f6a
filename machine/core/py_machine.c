#include "py_types.h"
#include "py_watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "access.h"
#include "execute.h"
#include "memory.h"
#include "mmu.h"
#include "registers.h"
#include "saved_state.h"
#include "snapshot.h"
#include "steps.h"
#include "store_buffer.h"
#include "tap.h"

#define RAM_BYTES_MAX (UINT64_C(3) << 30)

static struct cpu *cpu_of(PyObject *self, unsigned long long number)
{
	struct machine *m = machine_of(self);
	if (number < m->cpu_count)
		return &m->cpus[number];
	PyErr_Format(PyExc_ValueError, "cpu %llu: this machine has %u", number, m->cpu_count);
	return NULL;
}

/* --- life --- */

static int machine_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"cpus", "ram_bytes", "store_buffer", "pc", NULL};
	int pc = 0;
	unsigned long long cpus = 1, store_buffer = 8, ram_bytes = 64 << 20;
	if (PyTuple_Size(args) != 0) {
		PyErr_SetString(PyExc_TypeError, "Machine takes keyword arguments only");
		return -1;
	}
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&O&p", names, to_u64, &cpus, to_u64, &ram_bytes, to_u64, &store_buffer, &pc))
		return -1;
	if (cpus < 1 || cpus > CPU_MAX) {
		PyErr_Format(PyExc_ValueError, "cpus must be 1 to %d, not %llu", CPU_MAX, cpus);
		return -1;
	}
	if (!ram_bytes || ram_bytes % PAGE_SIZE || ram_bytes > RAM_BYTES_MAX) {
		PyErr_Format(PyExc_ValueError, "ram_bytes must be a multiple of 4096 up to 3 GB, not %llu", ram_bytes);
		return -1;
	}
	if (store_buffer < 1 || store_buffer > STORE_BUFFER_MAX) {
		PyErr_Format(PyExc_ValueError, "store_buffer must be 1 to %d, not %llu", STORE_BUFFER_MAX, store_buffer);
		return -1;
	}
	if (pc && cpus != 1) {
		PyErr_SetString(PyExc_ValueError, "a PC has one CPU");
		return -1;
	}
	struct machine_object *object = (struct machine_object *)self;
	if (object->machine) {
		PyErr_SetString(PyExc_TypeError, "a Machine is initialised once");
		return -1;
	}
	object->machine = machine_create((uint32_t)cpus, ram_bytes, (uint32_t)store_buffer);
	if (!object->machine) {
		PyErr_NoMemory();
		return -1;
	}
	if (pc)
		pc_create(object->machine);
	return 0;
}

static PyObject *machine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	PyObject *self = alloc(type, 0);
	if (self && machine_init(self, args, kwargs) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	return self;
}

static void machine_dealloc(PyObject *self)
{
	machine_destroy(machine_of(self));
	object_free(self);
}

/* --- execution --- */

const char *const stop_names[STOP_COUNT] = {
#define STOP(name) #name,
	STOPS(STOP)
#undef STOP
};

static PyObject *machine_execute(PyObject *self, PyObject *args, PyObject *kwargs)
{
	if (executing(self))
		return NULL;
	static char *names[] = {"plan", "index", "done", "step_max", "exact", NULL};
	PyObject *plan;
	struct plan_cursor cursor = {0, 0};
	unsigned long long index = 0, done = 0, step_max = UINT64_MAX;
	int exact = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O&O&O&p", names, &plan, to_u64, &index, to_u64, &done, to_u64, &step_max, &exact))
		return NULL;
	Py_buffer view;
	if (PyObject_GetBuffer(plan, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	if (view.len % (Py_ssize_t)sizeof(struct plan_record)) {
		PyBuffer_Release(&view);
		PyErr_SetString(PyExc_ValueError, "a plan consists of 16-byte records");
		return NULL;
	}
	struct machine *m = machine_of(self);
	/* A private copy: buffers need not be aligned. */
	struct plan_record *records = PyMem_Malloc(view.len ? (size_t)view.len : 1);
	if (!records) {
		PyBuffer_Release(&view);
		return PyErr_NoMemory();
	}
	memcpy(records, view.buf, (size_t)view.len);
	uint64_t count = (uint64_t)view.len / sizeof(*records);
	PyBuffer_Release(&view);
	cursor.index = index;
	cursor.done = done;
	if (index < count && done > plan_steps_max(&records[index])) {
		PyMem_Free(records);
		PyErr_SetString(PyExc_ValueError, "done is more than the record has");
		return NULL;
	}
	struct machine_object *object = (struct machine_object *)self;
	enum stop stop;
	object->executing = true;
	Py_BEGIN_ALLOW_THREADS
	stop = plan_execute(m, records, count, &cursor, step_max, exact);
	Py_END_ALLOW_THREADS
	object->executing = false;
	PyMem_Free(records);
	if (m->choices.failed || m->pool.failed)
		return PyErr_NoMemory();
	return Py_BuildValue("sKK", stop_names[stop], (unsigned long long)cursor.index, (unsigned long long)cursor.done);
}

static PyObject *machine_choices_take(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct choice_log *log = &machine_of(self)->choices;
	PyObject *bytes = PyBytes_FromStringAndSize((const char *)log->records, (Py_ssize_t)(log->count * sizeof(*log->records)));
	if (bytes)
		log->count = 0;
	return bytes;
}

static PyObject *machine_console_take(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct console *console = &machine_of(self)->console;
	PyObject *bytes = PyBytes_FromStringAndSize(console->text, (Py_ssize_t)console->count);
	if (bytes)
		console->count = 0;
	return bytes;
}

static PyObject *machine_timer_vector(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	return c ? PyLong_FromLong(timer_vector(c)) : NULL;
}

static PyObject *machine_can_interrupt(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number, vector;
	if (!PyArg_ParseTuple(args, "O&O&", to_u64, &number, to_u64, &vector))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	return c ? PyBool_FromLong(interrupt_possible(c, vector)) : NULL;
}

static PyObject *machine_waiting(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	static const char *const names[] = {"", "halt", "start", "choice"};
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	if (!c)
		return NULL;
	assert(c->s.waiting < sizeof(names) / sizeof(names[0]));
	return PyUnicode_FromString(c->machine->s.ended ? "off" : names[c->s.waiting]);
}

/* --- events --- */

static PyObject *machine_tap_capacity(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long count;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &count))
		return NULL;
	if (count < 1024 || count > 1 << 28) {
		PyErr_SetString(PyExc_ValueError, "tap capacity must be 1024 to 2**28 events");
		return NULL;
	}
	if (!tap_set_capacity(&machine_of(self)->tap, (uint32_t)count))
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

static PyObject *event_columns(PyObject *self, struct event_block *block, uint32_t count)
{
	struct event *rows = block->rows;
	uint64_t *wide[] = {&rows->step, &rows->pc, &rows->addr, &rows->phys, &rows->value};
	uint8_t *narrow[] = {&rows->kind, &rows->cpu, &rows->size, &rows->info};
	PyObject *result = PyTuple_New(10);
	if (!result)
		return NULL;
	PyObject *items[10] = {PyLong_FromUnsignedLong(count)};
	for (int i = 0; i < 5; i++)
		items[1 + i] = column_create(self, block, wide[i], count, sizeof(uint64_t));
	for (int i = 0; i < 4; i++)
		items[6 + i] = column_create(self, block, narrow[i], count, 1);
	bool failed = false;
	for (int i = 0; i < 10; i++) {
		failed |= !items[i];
		PyTuple_SetItem(result, i, items[i]);
	}
	if (failed) {
		Py_DECREF(result);
		return NULL;
	}
	return result;
}

static PyObject *machine_events(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct tap *tap = &machine_of(self)->tap;
	return event_columns(self, tap->block, tap_count(tap));
}

static PyObject *machine_events_take(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct tap *tap = &machine_of(self)->tap;
	uint32_t count = tap_count(tap);
	struct event_block *block = tap_take(tap);
	if (!block)
		return PyErr_NoMemory();
	PyObject *columns = event_columns(self, block, count);
	tap_release(tap, block);
	return columns;
}

static PyObject *machine_events_clear(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	tap_clear(&machine_of(self)->tap);
	Py_RETURN_NONE;
}

/* --- state --- */

static PyObject *machine_snapshot(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	return snapshot_create(self);
}

static PyObject *machine_restore(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	PyObject *object;
	if (!PyArg_ParseTuple(args, "O!", state_of(self)->snapshot_type, &object))
		return NULL;
	struct snapshot_object *snapshot = (struct snapshot_object *)object;
	if ((PyObject *)snapshot->owner != self) {
		PyErr_SetString(PyExc_ValueError, "the snapshot belongs to another machine");
		return NULL;
	}
	snapshot_restore(machine_of(self), snapshot->snapshot);
	Py_RETURN_NONE;
}

static PyObject *machine_state_hash_py(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	return PyLong_FromUnsignedLongLong(machine_state_hash(machine_of(self)));
}

static PyObject *machine_memory_hash_py(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct machine *m = machine_of(self);
	uint64_t hash = memory_hash(&m->memory);
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fast_forbid_writes(&m->cpus[i]);
	return PyLong_FromUnsignedLongLong(hash);
}

static PyObject *machine_state_save(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct machine *m = machine_of(self);
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)saved_state_size(m));
	if (bytes)
		saved_state_write(m, (uint8_t *)PyBytes_AsString(bytes));
	return bytes;
}

static PyObject *machine_state_load(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	const char *data;
	Py_ssize_t size;
	if (!PyArg_ParseTuple(args, "y#", &data, &size))
		return NULL;
	switch (saved_state_read(machine_of(self), (const uint8_t *)data, (size_t)size)) {
	case SAVED_STATE_OK: Py_RETURN_NONE;
	case SAVED_STATE_NO_MEMORY: return PyErr_NoMemory();
	case SAVED_STATE_INVALID: break;
	}
	PyErr_SetString(PyExc_ValueError, "not a state of this machine's layout and number of CPUs");
	return NULL;
}

static PyObject *machine_pages_written(PyObject *self, PyObject *unused)
{
	if (executing(self))
		return NULL;
	(void)unused;
	struct memory *mem = &machine_of(self)->memory;
	PyObject *list = PyList_New(0);
	for (uint32_t frame = 0; list && frame < mem->page_count; frame++) {
		if (!(mem->flags[frame] & PAGE_WRITTEN))
			continue;
		PyObject *number = PyLong_FromUnsignedLong(frame);
		if (!number || PyList_Append(list, number) < 0)
			Py_CLEAR(list);
		Py_XDECREF(number);
	}
	return list;
}

static PyObject *machine_pages_take(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	int all;
	if (!PyArg_ParseTuple(args, "p", &all))
		return NULL;
	struct machine *m = machine_of(self);
	struct memory *mem = &m->memory;
	uint32_t *frames = malloc(2 * (size_t)mem->page_count * sizeof(*frames));
	if (!frames)
		return PyErr_NoMemory();
	uint32_t *taken = frames + mem->page_count, taken_count;
	uint32_t count = memory_take_pages(mem, all, frames, taken, &taken_count);
	for (uint32_t i = 0; i < m->cpu_count; i++)
		fast_forbid_writes(&m->cpus[i]);
	PyObject *result = NULL;
	PyObject *contents = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)taken_count * PAGE_SIZE);
	if (contents) {
		char *to = PyBytes_AsString(contents);
		for (uint32_t i = 0; i < taken_count; i++)
			memcpy(to + (size_t)i * PAGE_SIZE, mem->ram + (uint64_t)taken[i] * PAGE_SIZE, PAGE_SIZE);
		result = Py_BuildValue("(y#y#N)", (const char *)frames, (Py_ssize_t)(count * sizeof(*frames)), (const char *)taken,
				       (Py_ssize_t)(taken_count * sizeof(*taken)), contents);
	}
	free(frames);
	return result;
}

/* --- memory and registers --- */

static PyObject *raise_not_ram(uint64_t size, uint64_t phys)
{
	char message[96]; /* PyErr_Format has no hexadecimal for 64 bits before Python 3.12 */
	snprintf(message, sizeof(message), "%" PRIu64 " bytes at physical %#" PRIx64 " are not all RAM", size, phys);
	PyErr_SetString(PyExc_ValueError, message);
	return NULL;
}

static PyObject *machine_read(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	struct memory *mem = &machine_of(self)->memory;
	unsigned long long phys, size;
	if (!PyArg_ParseTuple(args, "O&O&", to_u64, &phys, to_u64, &size))
		return NULL;
	if (!memory_contains(mem, phys, size))
		return raise_not_ram(size, phys);
	return PyBytes_FromStringAndSize((const char *)mem->ram + phys, (Py_ssize_t)size);
}

static PyObject *machine_write(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	struct machine *m = machine_of(self);
	unsigned long long phys;
	PyObject *data;
	Py_buffer view;
	if (!PyArg_ParseTuple(args, "O&O", to_u64, &phys, &data) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	bool inside = memory_contains(&m->memory, phys, (uint64_t)view.len);
	if (inside)
		memory_write(m, phys, view.buf, (size_t)view.len);
	else
		raise_not_ram((uint64_t)view.len, phys);
	PyBuffer_Release(&view);
	if (!inside)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *machine_translate(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number, addr;
	uint64_t phys;
	if (!PyArg_ParseTuple(args, "O&O&", to_u64, &number, to_u64, &addr))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	if (!c)
		return NULL;
	if (!mmu_peek(c, addr, &phys))
		return PyLong_FromLong(-1);
	return PyLong_FromUnsignedLongLong(phys);
}

static PyObject *machine_read_linear(PyObject *self, PyObject *args, PyObject *kwargs)
{
	if (executing(self))
		return NULL;
	static char *names[] = {"cpu", "addr", "size", "forward", NULL};
	unsigned long long number, addr, size;
	int forward = 1;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&O&|$p", names, to_u64, &number, to_u64, &addr, to_u64, &size, &forward))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	if (!c)
		return NULL;
	struct memory *mem = &c->machine->memory;
	if (size > mem->size_bytes)
		return PyErr_Format(PyExc_ValueError, "%llu bytes are more than RAM", size);
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (!bytes)
		return NULL;
	uint8_t *to = (uint8_t *)PyBytes_AsString(bytes);
	for (uint64_t at = 0; at < size;) {
		uint64_t here = (addr + at) & (cpu_long_mode(c) ? ~UINT64_C(0) : 0xffffffff), phys;
		uint64_t part = PAGE_SIZE - (here & (PAGE_SIZE - 1));
		if (part > size - at)
			part = size - at;
		if (!mmu_peek(c, here, &phys) || !memory_contains(mem, phys, part)) {
			Py_DECREF(bytes);
			PyObject *bad = PyLong_FromUnsignedLongLong(here);
			if (bad)
				PyErr_SetObject(PyExc_LookupError, bad);
			Py_XDECREF(bad);
			return NULL;
		}
		memcpy(to + at, mem->ram + phys, part);
		if (forward && store_buffer_overlaps(c, phys, (uint32_t)part)) {
			uint32_t info = 0;
			for (uint64_t i = 0; i < part; i++)
				to[at + i] = (uint8_t)store_buffer_read(c, phys + i, 1, &info);
		}
		at += part;
	}
	return bytes;
}

static PyObject *machine_registers(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	PyObject *dict = c ? PyDict_New() : NULL;
	for (uint32_t i = 0; dict && i < register_count; i++) {
		PyObject *value = PyLong_FromUnsignedLongLong(register_get(c, &register_table[i]));
		if (!value || PyDict_SetItemString(dict, register_table[i].name, value) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(value);
	}
	return dict;
}

static PyObject *machine_set_register(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number, value;
	const char *name;
	if (!PyArg_ParseTuple(args, "O&sO&", to_u64, &number, &name, to_u64, &value))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	if (!c)
		return NULL;
	const struct register_row *row = register_find(name);
	if (!row || !register_set(c, row, value)) {
		PyErr_SetString(PyExc_KeyError, name);
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *machine_set_bits(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number, bits;
	if (!PyArg_ParseTuple(args, "O&O&", to_u64, &number, to_u64, &bits))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	if (!c)
		return NULL;
	if (bits > 64 || !register_set_bits(c, (uint32_t)bits))
		return PyErr_Format(PyExc_ValueError, "code has 16, 32 or 64 bits, not %llu", bits);
	Py_RETURN_NONE;
}

static PyObject *machine_store_buffer_entries(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	PyObject *list = c ? PyList_New(0) : NULL;
	for (uint32_t i = 0; list && i < c->s.store_count; i++) {
		const struct store_entry *e = store_buffer_entry(c, i);
		PyObject *row = Py_BuildValue("KKKKK", e->addr, e->phys, e->size, e->value, e->pc);
		if (!row || PyList_Append(list, row) < 0)
			Py_CLEAR(list);
		Py_XDECREF(row);
	}
	return list;
}

static PyObject *machine_partial_loads(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	PyObject *result = c ? PyTuple_New((Py_ssize_t)c->s.partial_count) : NULL;
	for (uint32_t i = 0; result && i < c->s.partial_count; i++) {
		PyObject *value = PyLong_FromUnsignedLongLong(c->s.partial[i]);
		if (!value || PyTuple_SetItem(result, (Py_ssize_t)i, value) < 0)
			Py_CLEAR(result);
	}
	return result;
}

static int append_tlb(PyObject *list, const struct tlb_entry *entries, int count)
{
	for (int i = 0; i < count; i++) {
		const struct tlb_entry *e = &entries[i];
		if (!e->page)
			continue;
		PyObject *row = Py_BuildValue("KKKK", e->page & ~UINT64_C(1), e->frame, UINT64_C(1) << e->shift, e->flags);
		int failed = !row || PyList_Append(list, row) < 0;
		Py_XDECREF(row);
		if (failed)
			return -1;
	}
	return 0;
}

static PyObject *machine_tlb_entries(PyObject *self, PyObject *args)
{
	if (executing(self))
		return NULL;
	unsigned long long number;
	if (!PyArg_ParseTuple(args, "O&", to_u64, &number))
		return NULL;
	struct cpu *c = cpu_of(self, number);
	PyObject *list = c ? PyList_New(0) : NULL;
	if (list && (append_tlb(list, c->s.tlb_small, TLB_SMALL_SLOTS) < 0 ||
		     append_tlb(list, c->s.tlb_large, TLB_LARGE_SLOTS) < 0))
		Py_CLEAR(list);
	return list;
}

/* --- attributes --- */

enum attribute { CPUS, RAM_BYTES, STORE_BUFFER, PC, STEP, EXIT_STATUS, AUTO_CPU, CLASS_HASH, STOP_AT_TRACE, TAP, CHOICES_ENABLED };

static PyObject *machine_get(PyObject *self, void *closure)
{
	if (executing(self))
		return NULL;
	struct machine *m = machine_of(self);
	switch ((enum attribute)(uintptr_t)closure) {
	case CPUS: return PyLong_FromUnsignedLong(m->cpu_count);
	case RAM_BYTES: return PyLong_FromUnsignedLongLong(m->memory.size_bytes);
	case PC: return PyBool_FromLong(m->pc);
	case STORE_BUFFER: return PyLong_FromUnsignedLong(m->store_capacity);
	case STEP: return PyLong_FromUnsignedLongLong(m->step);
	case EXIT_STATUS: return PyLong_FromUnsignedLongLong(m->s.exit_status);
	case AUTO_CPU: return PyLong_FromUnsignedLong(m->auto_cpu);
	case CLASS_HASH: return PyLong_FromUnsignedLongLong(m->classes.hash);
	case STOP_AT_TRACE: return PyLong_FromUnsignedLong(m->stop_at_trace);
	case TAP: return PyBool_FromLong(m->tap.on);
	case CHOICES_ENABLED: return PyBool_FromLong(m->choices.on);
	}
	PyErr_SetString(PyExc_SystemError, "unknown attribute");
	return NULL;
}

static int machine_set(PyObject *self, PyObject *value, void *closure)
{
	if (executing(self))
		return -1;
	struct machine *m = machine_of(self);
	if (!value) {
		PyErr_SetString(PyExc_AttributeError, "cannot be deleted");
		return -1;
	}
	enum attribute attribute = (enum attribute)(uintptr_t)closure;
	if (attribute == STOP_AT_TRACE) {
		unsigned long identifier = PyLong_AsUnsignedLong(value);
		if (PyErr_Occurred())
			return -1;
		if (identifier > 0xffff) {
			PyErr_SetString(PyExc_ValueError, "a tracepoint identifier is at most 0xffff");
			return -1;
		}
		m->stop_at_trace = (uint32_t)identifier;
		return 0;
	}
	if (attribute == AUTO_CPU) {
		unsigned long cpu = PyLong_AsUnsignedLong(value);
		if (PyErr_Occurred())
			return -1;
		if (cpu >= m->cpu_count) {
			PyErr_SetString(PyExc_ValueError, "there is no such CPU");
			return -1;
		}
		m->auto_cpu = (uint32_t)cpu;
		return 0;
	}
	int truth = PyObject_IsTrue(value);
	if (truth < 0)
		return -1;
	if (attribute == TAP)
		tap_switch(&m->tap, truth);
	else
		m->choices.on = truth;
	return 0;
}

#define READ_ONLY(name, attribute) {name, machine_get, NULL, NULL, (void *)(uintptr_t)(attribute)}
#define READ_WRITE(name, attribute) {name, machine_get, machine_set, NULL, (void *)(uintptr_t)(attribute)}
static PyGetSetDef machine_getset[] = {
	READ_ONLY("cpus", CPUS),
	READ_ONLY("ram_bytes", RAM_BYTES),
	READ_ONLY("store_buffer", STORE_BUFFER),
	READ_ONLY("pc", PC),
	READ_ONLY("step", STEP),
	READ_ONLY("exit_status", EXIT_STATUS),
	READ_WRITE("auto_cpu", AUTO_CPU),
	READ_ONLY("class_hash", CLASS_HASH),
	READ_WRITE("stop_at_trace", STOP_AT_TRACE),
	READ_WRITE("tap", TAP),
	READ_WRITE("choices_enabled", CHOICES_ENABLED),
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef machine_methods[] = {
	{"execute", (PyCFunction)(void (*)(void))machine_execute, KEYWORDS, "Run a plan; see _core.pyi."},
	{"choices_take", machine_choices_take, METH_NOARGS, "The exact choices since the last call."},
	{"console_take", machine_console_take, METH_NOARGS, "Console output since the last call."},
	{"timer_vector", machine_timer_vector, METH_VARARGS, "Vector of a CPU's armed timer, -1 if it is not armed."},
	{"can_interrupt", machine_can_interrupt, METH_VARARGS, "Whether a vector could be delivered to a CPU now."},
	{"waiting", machine_waiting, METH_VARARGS, "What a CPU waits for, or ''."},
	{"watch", (PyCFunction)(void (*)(void))machine_watch, KEYWORDS, "Say which words are shared."},
	{"ledger", (PyCFunction)(void (*)(void))machine_set_ledger, KEYWORDS, "Say which tracepoint announces true changes."},
	{"ledger_sum", machine_ledger_sum, METH_VARARGS, "What was announced for a region and item."},
	{"page_pool", (PyCFunction)(void (*)(void))machine_page_pool, KEYWORDS, "Say which pages are the allocator's."},
	{"freed_use", machine_freed_use, METH_NOARGS, "The access to a freed page that ended the run, or None."},
	{"weights", machine_weights, METH_VARARGS, "Visible steps that each agent is thought to take."},
	{"visible_counts", machine_visible_counts, METH_NOARGS, "Visible steps of each agent in this run."},
	{"pairs_take", machine_pairs_take, METH_NOARGS, "Map of the pairs of conflicting instructions met."},
	{"tap_capacity", machine_tap_capacity, METH_VARARGS, "Set the size of the event columns."},
	{"events", machine_events, METH_NOARGS, "Views of the event columns."},
	{"events_take", machine_events_take, METH_NOARGS, "The event columns, given away."},
	{"events_clear", machine_events_clear, METH_NOARGS, "Forget the recorded events."},
	{"snapshot", machine_snapshot, METH_NOARGS, "Take a snapshot."},
	{"restore", machine_restore, METH_VARARGS, "Go back to a snapshot."},
	{"state_hash", machine_state_hash_py, METH_NOARGS, "Hash of the architectural state."},
	{"memory_hash", machine_memory_hash_py, METH_NOARGS, "Hash of RAM."},
	{"state_save", machine_state_save, METH_NOARGS, "Everything but RAM, as bytes."},
	{"state_load", machine_state_load, METH_VARARGS, "Set everything but RAM."},
	{"pages_written", machine_pages_written, METH_NOARGS, "Frames that may be non-zero."},
	{"pages_take", machine_pages_take, METH_VARARGS, "Frames that are not zero, and what was written of them."},
	{"read", machine_read, METH_VARARGS, "RAM bytes."},
	{"write", machine_write, METH_VARARGS, "Set RAM bytes."},
	{"translate", machine_translate, METH_VARARGS, "Physical address of a linear one, or -1."},
	{"read_linear", (PyCFunction)(void (*)(void))machine_read_linear, KEYWORDS, "Bytes as a CPU would load them."},
	{"registers", machine_registers, METH_VARARGS, "A CPU's registers."},
	{"set_register", machine_set_register, METH_VARARGS, "Set a register."},
	{"set_bits", machine_set_bits, METH_VARARGS, "Put a CPU into flat code of 16, 32 or 64 bits."},
	{"store_buffer_entries", machine_store_buffer_entries, METH_VARARGS, "Held stores, oldest first."},
	{"partial_loads", machine_partial_loads, METH_VARARGS, "What the instruction begun has loaded."},
	{"tlb_entries", machine_tlb_entries, METH_VARARGS, "Cached translations."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot machine_slots[] = {
	{Py_tp_new, machine_new},
	{Py_tp_dealloc, machine_dealloc},
	{Py_tp_methods, machine_methods},
	{Py_tp_getset, machine_getset},
	{Py_tp_doc, "A deterministic x86 multiprocessor; see _core.pyi."},
	{0, NULL},
};

PyType_Spec machine_spec = {
	.name = "machine._core.Machine",
	.basicsize = sizeof(struct machine_object),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = machine_slots,
};
