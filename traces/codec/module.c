/* The extension module `traces._codec`: what it does to events is in encode.c and decode.c. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "codec.h"

/* Takes the buffers of nine columns of one length. Returns false with an exception set. */
static bool columns_get(PyObject *columns, Py_buffer views[COLUMN_COUNT], int flags)
{
	if (!PyTuple_Check(columns) || PyTuple_Size(columns) != COLUMN_COUNT) {
		PyErr_SetString(PyExc_TypeError, "the columns are a tuple of nine buffers");
		return false;
	}
	for (int i = 0; i < COLUMN_COUNT; i++) {
		if (PyObject_GetBuffer(PyTuple_GetItem(columns, i), &views[i], flags) < 0) {
			while (i--)
				PyBuffer_Release(&views[i]);
			return false;
		}
	}
	return true;
}

static void columns_release(Py_buffer views[COLUMN_COUNT])
{
	for (int i = 0; i < COLUMN_COUNT; i++)
		PyBuffer_Release(&views[i]);
}

static Py_ssize_t item_bytes(int column)
{
	return column < WIDE_COUNT ? (Py_ssize_t)sizeof(uint64_t) : 1;
}

/* Whether the columns are the fields of one array of struct row. */
static bool columns_are_rows(const Py_buffer views[COLUMN_COUNT])
{
	Py_ssize_t offset = 0;
	for (int i = 0; i < COLUMN_COUNT; offset += item_bytes(i++)) {
		const Py_buffer *view = &views[i];
		if (view->ndim != 1 || view->itemsize != item_bytes(i) || view->shape[0] != views[0].shape[0])
			return false;
		/* A single row has no distance to the next, none has no place. */
		if (view->shape[0] > 1 && view->strides[0] != (Py_ssize_t)sizeof(struct row))
			return false;
		if (view->shape[0] > 0 && (const char *)view->buf != (const char *)views[0].buf + offset)
			return false;
	}
	return views[0].shape[0] <= CODEC_EVENTS_MAX && (uintptr_t)views[0].buf % _Alignof(struct row) == 0;
}

/* The rules as `traces.index` makes them: a role for each kind, then the bits of info that say drained and device. */
static bool rules_get(struct index_rules *rules, const char *bytes, Py_ssize_t size)
{
	if (size != 258) {
		PyErr_SetString(PyExc_ValueError, "the rules are a byte for each kind and two of info");
		return false;
	}
	memcpy(rules->role, bytes, sizeof(rules->role));
	rules->drained = (uint8_t)bytes[256];
	rules->device = (uint8_t)bytes[257];
	return true;
}

static PyObject *encoded(const uint8_t *coded, const uint32_t sizes[STREAM_COUNT], const struct index *index, bool with_index)
{
	Py_ssize_t total = 0;
	for (int i = 0; i < STREAM_COUNT; i++)
		total += sizes[i];
	PyObject *of_sizes = Py_BuildValue("(IIII)", sizes[0], sizes[1], sizes[2], sizes[3]);
	if (!of_sizes)
		return NULL;
	if (!with_index)
		return Py_BuildValue("(y#N)", (const char *)coded, total, of_sizes);
	/* Nothing is None. */
	return Py_BuildValue("(y#Ny#)", (const char *)coded, total, of_sizes, (const char *)index->data, (Py_ssize_t)index->size);
}

static PyObject *module_encode(PyObject *module, PyObject *args)
{
	(void)module;
	PyObject *columns;
	const char *bytes = NULL;
	Py_ssize_t size = 0;
	struct index_rules rules;
	if (!PyArg_ParseTuple(args, "O|y#", &columns, &bytes, &size) || (bytes && !rules_get(&rules, bytes, size)))
		return NULL;
	Py_buffer views[COLUMN_COUNT];
	if (!columns_get(columns, views, PyBUF_STRIDES))
		return NULL;
	PyObject *result = NULL;
	if (!columns_are_rows(views)) {
		PyErr_SetString(PyExc_ValueError, "the columns are not the fields of at most 2**18 rows of 48 bytes");
	} else {
		size_t count = (size_t)views[0].shape[0];
		uint32_t sizes[STREAM_COUNT];
		struct index index = {NULL, 0};
		bool done = false;
		uint8_t *coded = malloc(encoded_bytes_max(count));
		if (coded) {
			Py_BEGIN_ALLOW_THREADS
			done = encode_events(views[0].buf, count, coded, sizes, bytes ? &rules : NULL, &index);
			Py_END_ALLOW_THREADS
		}
		if (done)
			result = encoded(coded, sizes, &index, bytes);
		else
			PyErr_NoMemory();
		free(index.data);
		free(coded);
	}
	columns_release(views);
	return result;
}

/* Whether `views` are what `count` events can be written to. */
static bool columns_have_room(const Py_buffer views[COLUMN_COUNT], size_t count)
{
	for (int i = 0; i < COLUMN_COUNT; i++)
		if (views[i].len != (Py_ssize_t)count * item_bytes(i) || (uintptr_t)views[i].buf % (size_t)item_bytes(i))
			return false;
	return true;
}

static PyObject *module_decode(PyObject *module, PyObject *args)
{
	(void)module;
	int codec;
	const char *coded;
	Py_ssize_t size;
	uint32_t sizes[STREAM_COUNT];
	PyObject *columns;
	int prefix = 0;
	if (!PyArg_ParseTuple(args, "iy#(IIII)O|p", &codec, &coded, &size, &sizes[0], &sizes[1], &sizes[2], &sizes[3], &columns, &prefix))
		return NULL;
	if (codec != CODEC_3 && codec != CODEC_4) {
		PyErr_Format(PyExc_ValueError, "codec %d keeps no streams", codec);
		return NULL;
	}
	uint64_t total = 0;
	for (int i = 0; i < STREAM_COUNT; i++)
		total += sizes[i];
	if (total != (uint64_t)size) {
		PyErr_SetString(PyExc_ValueError, "the streams have another length together");
		return NULL;
	}
	Py_buffer views[COLUMN_COUNT];
	if (!columns_get(columns, views, PyBUF_WRITABLE))
		return NULL;
	size_t count = (size_t)(views[0].len / item_bytes(0));
	enum decode_status status = DECODE_OK;
	bool room = count <= CODEC_EVENTS_MAX && columns_have_room(views, count);
	if (room) {
		struct columns out;
		for (int i = 0; i < WIDE_COUNT; i++)
			out.wide[i] = views[i].buf;
		for (int i = 0; i < NARROW_COUNT; i++)
			out.narrow[i] = views[WIDE_COUNT + i].buf;
		Py_BEGIN_ALLOW_THREADS
		status = decode_events((enum codec)codec, (const uint8_t *)coded, sizes, count, prefix, &out);
		Py_END_ALLOW_THREADS
	}
	columns_release(views);
	if (!room)
		PyErr_SetString(PyExc_ValueError, "the columns are not nine arrays of one length, at most 2**18");
	else if (status == DECODE_DAMAGED)
		PyErr_SetString(PyExc_ValueError, "the streams do not describe these events");
	else if (status == DECODE_NO_MEMORY)
		PyErr_NoMemory();
	else
		Py_RETURN_NONE;
	return NULL;
}

/* A choice as the machine takes it. */
struct record {
	uint8_t op, cpu;
	uint16_t flags;
	uint32_t reserved;
	uint64_t arg;
};

/* Once a chunk, mostly for a single record, and with cold caches: with numpy it took a tenth of the time of a recording. */
static PyObject *module_check_choices(PyObject *module, PyObject *args)
{
	(void)module;
	PyObject *records;
	const uint8_t *rules;
	Py_ssize_t rules_size;
	unsigned long long span;
	unsigned int cpus;
	if (!PyArg_ParseTuple(args, "Oy#IK", &records, &rules, &rules_size, &cpus, &span))
		return NULL;
	if (rules_size != 256) {
		PyErr_SetString(PyExc_ValueError, "the rules are a byte for each op");
		return NULL;
	}
	Py_buffer view;
	if (PyObject_GetBuffer(records, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	size_t count = (size_t)view.len / sizeof(struct record), at = 0;
	/* In halves, or the sum could wrap around. */
	uint64_t high = 0, low = 0;
	for (; at < count; at++) {
		struct record record;
		memcpy(&record, (const char *)view.buf + at * sizeof(record), sizeof(record));
		uint8_t rule = rules[record.op];
		uint64_t steps = rule & 2 ? record.arg : 1;
		if (!(rule & 1) || record.flags & ~(rule >> 2) || record.cpu >= cpus || record.reserved || !steps || steps > span)
			break;
		high += steps >> 32;
		low += steps & UINT32_MAX;
	}
	PyBuffer_Release(&view);
	return Py_BuildValue("nKK", at == count ? (Py_ssize_t)-1 : (Py_ssize_t)at, (unsigned long long)high, (unsigned long long)low);
}

static PyObject *module_same_pages(PyObject *module, PyObject *pages)
{
	(void)module;
	Py_buffer view;
	if (PyObject_GetBuffer(pages, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	PyObject *result = NULL;
	if (view.len % CODEC_PAGE_BYTES || view.len / CODEC_PAGE_BYTES >= UINT32_MAX) {
		PyErr_SetString(PyExc_ValueError, "not whole pages of 4096 bytes");
	} else {
		uint32_t count = (uint32_t)(view.len / CODEC_PAGE_BYTES);
		uint32_t *first = malloc(count * sizeof(*first) + 1); /* a byte, so that none is not NULL */
		bool done = false;
		if (first) {
			Py_BEGIN_ALLOW_THREADS
			done = same_pages(view.buf, count, first);
			Py_END_ALLOW_THREADS
		}
		if (done)
			result = PyBytes_FromStringAndSize((const char *)first, (Py_ssize_t)(count * sizeof(*first)));
		else
			PyErr_NoMemory();
		free(first);
	}
	PyBuffer_Release(&view);
	return result;
}

static PyObject *index_damaged(void)
{
	PyErr_SetString(PyExc_ValueError, "this is no index");
	return NULL;
}

static PyObject *module_index_find(PyObject *module, PyObject *args)
{
	(void)module;
	const char *index;
	Py_ssize_t size;
	unsigned long long first, last;
	if (!PyArg_ParseTuple(args, "y#KK", &index, &size, &first, &last))
		return NULL;
	uint8_t flags;
	int64_t row;
	if (!find_words((const uint8_t *)index, (size_t)size, first, last, &flags, &row))
		return index_damaged();
	return Py_BuildValue("iL", (int)flags, (long long)row);
}

static PyObject *module_index_pages(PyObject *module, PyObject *args)
{
	(void)module;
	const char *index;
	Py_ssize_t size;
	if (!PyArg_ParseTuple(args, "y#", &index, &size))
		return NULL;
	size_t count;
	if (!read_pages((const uint8_t *)index, (size_t)size, &count, NULL))
		return index_damaged();
	uint64_t *pages = malloc(count * sizeof(*pages) + 1);
	if (!pages)
		return PyErr_NoMemory();
	read_pages((const uint8_t *)index, (size_t)size, &count, pages);
	PyObject *result = PyBytes_FromStringAndSize((const char *)pages, (Py_ssize_t)(count * sizeof(*pages)));
	free(pages);
	return result;
}

static PyObject *module_index_read(PyObject *module, PyObject *args)
{
	(void)module;
	const char *index;
	Py_ssize_t size;
	if (!PyArg_ParseTuple(args, "y#", &index, &size))
		return NULL;
	struct index_counts counts;
	if (!read_index((const uint8_t *)index, (size_t)size, &counts, NULL, NULL, NULL, NULL))
		return index_damaged();
	const size_t bytes[] = {counts.words * sizeof(struct word_entry), counts.pcs * sizeof(uint64_t),
				counts.operands * sizeof(struct operand_entry), counts.kinds * sizeof(struct kind_entry)};
	void *parts[] = {calloc(bytes[0] + 1, 1), malloc(bytes[1] + 1), malloc(bytes[2] + 1), malloc(bytes[3] + 1)};
	PyObject *result = NULL;
	if (parts[0] && parts[1] && parts[2] && parts[3]) {
		read_index((const uint8_t *)index, (size_t)size, &counts, parts[0], parts[1], parts[2], parts[3]);
		result = Py_BuildValue("(y#y#y#y#)", parts[0], (Py_ssize_t)bytes[0], parts[1], (Py_ssize_t)bytes[1], parts[2],
				       (Py_ssize_t)bytes[2], parts[3], (Py_ssize_t)bytes[3]);
	} else {
		PyErr_NoMemory();
	}
	for (int i = 0; i < 4; i++)
		free(parts[i]);
	return result;
}

static PyMethodDef module_methods[] = {
	{"encode", module_encode, METH_VARARGS, "Events into streams, and their index; see _codec.pyi."},
	{"decode", module_decode, METH_VARARGS, "Streams into events; see _codec.pyi."},
	{"index_find", module_index_find, METH_VARARGS, "What an index says of some words; see _codec.pyi."},
	{"index_pages", module_index_pages, METH_VARARGS, "Which pages an index knows; see _codec.pyi."},
	{"index_read", module_index_read, METH_VARARGS, "All that an index says; see _codec.pyi."},
	{"same_pages", module_same_pages, METH_O, "Which pages are equal; see _codec.pyi."},
	{"check_choices", module_check_choices, METH_VARARGS, "Whether choices are possible; see _codec.pyi."},
	{0},
};

static PyModuleDef_Slot module_slots[] = {
	{0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "traces._codec",
	.m_methods = module_methods,
	.m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__codec(void)
{
	return PyModuleDef_Init(&module_def);
}
