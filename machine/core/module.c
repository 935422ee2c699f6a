/* The extension module: types, constants, and the two functions about the instruction table. */
#include "py_types.h"

#include "decode.h"
#include "execute.h"
#include "pick.h"
#include "saved_state.h"
#include "tap.h"

static const char *access_name(uint8_t access)
{
	static const char *const names[] = {"", "R", "W", "RW"};
	assert(access < 4);
	return names[access];
}

static PyObject *module_decode(PyObject *module, PyObject *args, PyObject *kwargs)
{
	(void)module;
	static char *names[] = {"code", "bits", NULL};
	const char *code;
	Py_ssize_t size;
	int bits = 32;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#|$i", names, &code, &size, &bits))
		return NULL;
	if (bits != 64 && bits != 32 && bits != 16)
		return PyErr_Format(PyExc_ValueError, "no %d-bit instructions in the table", bits);
	struct decode_table *table = PyMem_Malloc(sizeof(*table));
	if (!table)
		return PyErr_NoMemory();
	decode_table_init(table);
	struct op op;
	enum decode_result result = decode_bytes(table, (const uint8_t *)code, (size_t)size, (uint32_t)bits, &op);
	PyMem_Free(table);
	if (result != DECODE_OK) {
		PyErr_SetString(PyExc_ValueError, result == DECODE_SHORT ? "incomplete instruction" : "not in the instruction table");
		return NULL;
	}
	const struct instruction *insn = &instruction_table[op.row];
	return Py_BuildValue("sis", insn->mnemonic, (int)op.length, access_name(insn->access));
}

static PyObject *module_instructions(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	PyObject *list = PyList_New(0);
	for (uint32_t i = 0; list && i < instruction_count; i++) {
		const struct instruction *insn = &instruction_table[i];
		PyObject *lockable = PyBool_FromLong(insn->traits & TRAIT_lock);
		const char *modes = insn->traits & TRAIT_not64 ? "16,32" : insn->traits & TRAIT_only64 ? "64" : "16,32,64";
		PyObject *row = Py_BuildValue("iiisssNs", insn->map, insn->opcode, insn->extension, insn->mnemonic,
					      form_names[insn->form], access_name(insn->access), lockable, modes);
		if (!row || PyList_Append(list, row) < 0)
			Py_CLEAR(list);
		Py_XDECREF(row);
	}
	return list;
}

static PyMethodDef module_methods[] = {
	{"decode", (PyCFunction)(void (*)(void))module_decode, KEYWORDS, "(mnemonic, length, access) of an instruction."},
	{"instructions", module_instructions, METH_NOARGS, "The rows of the instruction table."},
	{NULL, NULL, 0, NULL},
};

static int add_dict(PyObject *module, const char *name, bool docs)
{
	static const struct {
		int number;
		const char *name, *doc;
	} events[] = {
#define EVENT(number, name, doc) {number, #name, doc},
#include "event.def"
#undef EVENT
	};
	PyObject *dict = PyDict_New();
	for (size_t i = 0; dict && i < sizeof(events) / sizeof(events[0]); i++) {
		PyObject *value = docs ? PyUnicode_FromString(events[i].doc) : PyLong_FromLong(events[i].number);
		if (!value || PyDict_SetItemString(dict, events[i].name, value) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(value);
	}
	int failed = !dict || PyModule_AddObjectRef(module, name, dict) < 0;
	Py_XDECREF(dict);
	return failed ? -1 : 0;
}

static int add_stops(PyObject *module)
{
	PyObject *tuple = PyTuple_New(STOP_COUNT);
	for (int i = 0; tuple && i < STOP_COUNT; i++) {
		PyObject *name = PyUnicode_FromString(stop_names[i]);
		if (!name)
			Py_CLEAR(tuple);
		else
			PyTuple_SetItem(tuple, i, name);
	}
	int failed = !tuple || PyModule_AddObjectRef(module, "STOPS", tuple) < 0;
	Py_XDECREF(tuple);
	return failed ? -1 : 0;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
	*ret = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
	return *ret ? PyModule_AddType(module, *ret) : -1;
}

static int module_exec(PyObject *module)
{
	static const struct {
		const char *name;
		int value;
	} constants[] = {
		{"EVENT_FORWARDED", EVENT_FORWARDED}, {"EVENT_MERGED", EVENT_MERGED}, {"EVENT_LOCKED", EVENT_LOCKED},
		{"EVENT_DRAINED", EVENT_DRAINED}, {"EVENT_DEVICE", EVENT_DEVICE}, {"EVENT_IMPLICIT", EVENT_IMPLICIT},
		{"RUN", PLAN_RUN}, {"DRAIN", PLAN_DRAIN}, {"IRQ", PLAN_IRQ}, {"CHOICE", PLAN_CHOICE},
		{"EVICT", PLAN_EVICT}, {"AUTO", PLAN_AUTO}, {"PICK", PLAN_PICK}, {"STEP", PLAN_STEP}, {"PICK_WALK", PICK_WALK}, {"PICK_POS", PICK_POS},
		{"PICK_PCT", PICK_PCT}, {"PICK_EAGER", PICK_EAGER}, {"PICK_TASKS", PICK_TASKS}, {"PICK_DEPTH_SHIFT", PICK_DEPTH_SHIFT},
		{"PICK_TICKS_SHIFT", PICK_TICKS_SHIFT}, {"AGENT_CPU", AGENT_CPU}, {"AGENT_DRAIN", AGENT_DRAIN},
		{"AGENT_INTERRUPT", AGENT_INTERRUPT}, {"AGENT_TICK", AGENT_TICK}, {"AGENT_COUNT", AGENT_COUNT}, {"HOLD", PLAN_HOLD}, {"ROOM", PLAN_ROOM}, {"ON", PLAN_ON}, {"STATE_VERSION", STATE_VERSION},
	};
	struct module_state *state = PyModule_GetState(module);
	for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
		if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
			return -1;
	if (add_dict(module, "EVENT_KINDS", false) < 0 || add_dict(module, "EVENT_DOCS", true) < 0 || add_stops(module) < 0)
		return -1;
	if (add_type(module, &column_spec, &state->column_type) < 0 || add_type(module, &snapshot_spec, &state->snapshot_type) < 0)
		return -1;
	if (add_type(module, &explorer_spec, &state->explorer_type) < 0)
		return -1;
	return add_type(module, &machine_spec, &state->machine_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = PyModule_GetState(module);
	Py_VISIT(state->machine_type);
	Py_VISIT(state->snapshot_type);
	Py_VISIT(state->column_type);
	Py_VISIT(state->explorer_type);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);
	Py_CLEAR(state->machine_type);
	Py_CLEAR(state->snapshot_type);
	Py_CLEAR(state->column_type);
	Py_CLEAR(state->explorer_type);
	return 0;
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, module_exec},
	{0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "machine._core",
	.m_size = sizeof(struct module_state),
	.m_methods = module_methods,
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&module_def);
}
