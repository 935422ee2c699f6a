#include "py_types.h"

#include "tap.h"

/* A field of every row of the tap: elements lie a row apart. */
static int column_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct column_object *column = (struct column_object *)self;
	view->obj = NULL;
	if (flags & PyBUF_WRITABLE || (flags & PyBUF_STRIDES) != PyBUF_STRIDES) {
		PyErr_SetString(PyExc_BufferError, "event columns are read-only and not contiguous");
		return -1;
	}
	Py_INCREF(self);
	*view = (Py_buffer){
		.buf = column->data,
		.obj = self,
		.len = column->shape * column->item_size,
		.itemsize = column->item_size,
		.readonly = 1,
		.ndim = 1,
		.format = flags & PyBUF_FORMAT ? (column->item_size == 8 ? "Q" : "B") : NULL,
		.shape = &column->shape,
		.strides = &column->stride,
	};
	return 0;
}

static void column_dealloc(PyObject *self)
{
	struct column_object *column = (struct column_object *)self;
	if (column->owner) {
		tap_release(&column->owner->machine->tap, column->block);
		Py_DECREF((PyObject *)column->owner);
	}
	object_free(self);
}

PyObject *column_create(PyObject *owner, struct event_block *block, void *data, size_t count, size_t item_size)
{
	PyTypeObject *type = state_of(owner)->column_type;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct column_object *column = (struct column_object *)alloc(type, 0);
	if (!column)
		return NULL;
	Py_INCREF(owner);
	column->owner = (struct machine_object *)owner;
	column->block = block;
	block->references++;
	column->data = data;
	column->shape = (Py_ssize_t)count;
	column->item_size = (Py_ssize_t)item_size;
	column->stride = sizeof(struct event);
	PyObject *view = PyMemoryView_FromObject((PyObject *)column);
	Py_DECREF(column);
	return view;
}

static PyType_Slot column_slots[] = {
	{Py_tp_dealloc, column_dealloc},
	{Py_bf_getbuffer, column_getbuffer},
	{0, NULL},
};

PyType_Spec column_spec = {
	.name = "machine._core.Column",
	.basicsize = sizeof(struct column_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = column_slots,
};
