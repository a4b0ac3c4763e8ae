/* Functions of the C library that Python doesn't offer, as singleton_run/system/libc.py calls them by ctypes elsewhere. */
#include <Python.h>

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "zones.h" /* struct {name, start, size} zone_table[], sorted by name, and the bytes in zone_data */

#define MOST 6

typedef long (*Any)(long, long, long, long, long, long);

/* On the machines that this is built for an argument is a register, whatever its type, up to the sixth. */
static const struct {
    const char *name;
    Any function;
} functions[] = {
    {"fstatfs", (Any)fstatfs},   {"inotify_add_watch", (Any)inotify_add_watch},
    {"inotify_init1", (Any)inotify_init1}, {"memcpy", (Any)memcpy},
    {"prctl", (Any)prctl},       {"signalfd", (Any)signalfd},
    {"syscall", (Any)syscall},   {"timerfd_create", (Any)timerfd_create},
    {"timerfd_settime", (Any)timerfd_settime},
};

static int last_error;

/* call(number, *arguments): each an int, None, or anything with a buffer. Its result as a C int. */
static PyObject *call(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer buffers[MOST];
    long values[MOST] = {0};
    int used = 0;
    PyObject *result = NULL;
    long number = count > 0 ? PyLong_AsLong(arguments[0]) : -1;
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (number < 0 || number >= (long)(sizeof functions / sizeof *functions) || count > MOST + 1) {
        PyErr_SetString(PyExc_TypeError, "no such function, or too many arguments");
        return NULL;
    }
    for (Py_ssize_t i = 1; i < count; i++) {
        PyObject *argument = arguments[i];
        if (PyLong_Check(argument)) {
            values[i - 1] = (long)PyLong_AsUnsignedLongMask(argument);
        } else if (argument != Py_None) {
            if (PyObject_GetBuffer(argument, &buffers[used], PyBUF_SIMPLE) < 0) {
                goto done;
            }
            values[i - 1] = (long)buffers[used++].buf;
        }
    }
    errno = 0;
    int answer = (int)functions[number].function(values[0], values[1], values[2], values[3], values[4], values[5]);
    last_error = errno;
    result = PyLong_FromLong(answer);
done:
    while (used > 0) {
        PyBuffer_Release(&buffers[--used]);
    }
    return result;
}

static PyObject *number(PyObject *self, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    for (size_t i = 0; text != NULL && i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].name, text) == 0) {
            return PyLong_FromSize_t(i);
        }
    }
    return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_AttributeError, "no function %s", text);
}

static PyObject *get_errno(PyObject *self, PyObject *unused)
{
    return PyLong_FromLong(last_error);
}

/* A NULL-terminated array of the texts in a tuple of bytes, which must outlive it. */
static char **texts(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    char **array = PyMem_Calloc(count + 1, sizeof *array);
    for (Py_ssize_t i = 0; array != NULL && i < count; i++) {
        array[i] = PyBytes_AsString(PyTuple_GET_ITEM(tuple, i));
        if (array[i] == NULL) {
            PyMem_Free(array);
            return NULL;
        }
    }
    return array != NULL ? array : (char **)PyErr_NoMemory();
}

/* execve(path, arguments, entries): bytes, and two tuples of bytes. Returns the error's number. */
static PyObject *execute(PyObject *self, PyObject *given)
{
    const char *path;
    PyObject *arguments, *entries;
    if (!PyArg_ParseTuple(given, "yO!O!", &path, &PyTuple_Type, &arguments, &PyTuple_Type, &entries)) {
        return NULL;
    }
    char **words = texts(arguments);
    char **environ = words != NULL ? texts(entries) : NULL;
    if (environ != NULL) {
        execve(path, words, environ);
        last_error = errno;
        PyMem_Free(environ);
    }
    PyMem_Free(words);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(last_error);
}

static int by_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct zone *)entry)->name);
}

/* zone(name): the compiled time zone as bytes, or None. */
static PyObject *zone(PyObject *self, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (text == NULL) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    const struct zone *found = bsearch(text, zone_table, sizeof zone_table / sizeof *zone_table, sizeof *zone_table, by_name);
    if (found == NULL) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize(zone_data + found->start, found->size);
}

/* zones(): the names of all of them. */
static PyObject *zones(PyObject *self, PyObject *unused)
{
    PyObject *names = PyList_New(0);
    for (size_t i = 0; names != NULL && i < sizeof zone_table / sizeof *zone_table; i++) {
        PyObject *name = PyUnicode_FromString(zone_table[i].name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

static PyMethodDef methods[] = {
    {"zone", zone, METH_O, NULL},
    {"zones", zones, METH_NOARGS, NULL},
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL, NULL},
    {"number", number, METH_O, NULL},
    {"get_errno", get_errno, METH_NOARGS, NULL},
    {"execve", execute, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_singleton_run", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__singleton_run(void)
{
    return PyModule_Create(&module);
}
