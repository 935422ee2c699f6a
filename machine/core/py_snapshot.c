#include "py_types.h"
#include "snapshot.h"

static void snapshot_dealloc(PyObject *self)
{
	struct snapshot_object *object = (struct snapshot_object *)self;
	snapshot_destroy(object->snapshot);
	Py_XDECREF((PyObject *)object->owner);
	object_free(self);
}

static PyObject *snapshot_get_step(PyObject *self, void *closure)
{
	(void)closure;
	return PyLong_FromUnsignedLongLong(((struct snapshot_object *)self)->snapshot->step);
}

static PyGetSetDef snapshot_getset[] = {
	{"step", snapshot_get_step, NULL, "step at which it was taken", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot snapshot_slots[] = {
	{Py_tp_dealloc, snapshot_dealloc},
	{Py_tp_getset, snapshot_getset},
	{Py_tp_doc, "An opaque moment of one machine."},
	{0, NULL},
};

PyType_Spec snapshot_spec = {
	.name = "machine._core.Snapshot",
	.basicsize = sizeof(struct snapshot_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = snapshot_slots,
};

PyObject *snapshot_create(PyObject *owner)
{
	PyTypeObject *type = state_of(owner)->snapshot_type;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct snapshot_object *object = (struct snapshot_object *)alloc(type, 0);
	if (!object)
		return NULL;
	Py_INCREF(owner);
	object->owner = (struct machine_object *)owner;
	object->snapshot = snapshot_take(machine_of(owner));
	if (!object->snapshot) {
		Py_DECREF(object);
		return PyErr_NoMemory();
	}
	return (PyObject *)object;
}
