#include "py_types.h"

static int column_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct column_object *column = (struct column_object *)self;
	if (PyBuffer_FillInfo(view, self, column->data, column->shape * column->item_size, 1, flags & PyBUF_WRITABLE) < 0)
		return -1;
	if (flags & PyBUF_FORMAT)
		view->format = column->item_size == 8 ? "Q" : "B";
	view->itemsize = column->item_size;
	if (flags & PyBUF_ND)
		view->shape = &column->shape;
	if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES)
		view->strides = &column->item_size;
	column->owner->exports++;
	return 0;
}

static void column_releasebuffer(PyObject *self, Py_buffer *view)
{
	(void)view;
	((struct column_object *)self)->owner->exports--;
}

static void column_dealloc(PyObject *self)
{
	Py_XDECREF((PyObject *)((struct column_object *)self)->owner);
	object_free(self);
}

PyObject *column_create(PyObject *owner, void *data, size_t count, size_t item_size)
{
	PyTypeObject *type = state_of(owner)->column_type;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct column_object *column = (struct column_object *)alloc(type, 0);
	if (!column)
		return NULL;
	Py_INCREF(owner);
	column->owner = (struct machine_object *)owner;
	column->data = data;
	column->shape = (Py_ssize_t)count;
	column->item_size = (Py_ssize_t)item_size;
	PyObject *view = PyMemoryView_FromObject((PyObject *)column);
	Py_DECREF(column);
	return view;
}

static PyType_Slot column_slots[] = {
	{Py_tp_dealloc, column_dealloc},
	{Py_bf_getbuffer, column_getbuffer},
	{Py_bf_releasebuffer, column_releasebuffer},
	{0, NULL},
};

PyType_Spec column_spec = {
	.name = "machine._core.Column",
	.basicsize = sizeof(struct column_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = column_slots,
};
