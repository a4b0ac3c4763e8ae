/* The module `_packed`: those modules in Python that aren't ours, compressed. start/importlib_external.py imports from it. */
#include <Python.h>

#include <marshal.h>
#include <zlib.h>

#include "packed.h" /* struct {name, start, packed, size, is_package} packed_table[], sorted by name, and packed_data */

static const struct packed *look_up(PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    size_t low = 0, high = sizeof packed_table / sizeof *packed_table;
    while (text != NULL && low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(text, packed_table[middle].name);
        if (order == 0) {
            return &packed_table[middle];
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

/* is_package(name): whether that module is a package, None if there is no such module. */
static PyObject *is_package(PyObject *self, PyObject *name)
{
    const struct packed *found = look_up(name);
    if (found == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return PyBool_FromLong(found->is_package);
}

/* code(name): the code object of a module that there is. */
static PyObject *code(PyObject *self, PyObject *name)
{
    const struct packed *found = look_up(name);
    if (found == NULL) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ImportError, "no module named %R", name);
    }
    uLongf size = found->size;
    unsigned char *text = PyMem_Malloc(size);
    if (text == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *made = NULL;
    if (uncompress(text, &size, packed_data + found->start, found->packed) == Z_OK) {
        made = PyMarshal_ReadObjectFromString((const char *)text, (Py_ssize_t)size);
    } else {
        PyErr_Format(PyExc_ImportError, "the module %R can't be unpacked", name);
    }
    PyMem_Free(text);
    return made;
}

static PyMethodDef methods[] = {
    {"is_package", is_package, METH_O, NULL},
    {"code", code, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_packed", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__packed(void)
{
    return PyModuleDef_Init(&definition);
}
