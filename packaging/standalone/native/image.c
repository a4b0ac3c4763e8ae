/* The image: memory with an initialised CPython and the modules on the way to the command, which the finished executable
   begins with. image.py starts the linked program once; `keep` stops it, and image.py writes its memory into a new program
   file. When a user starts that file, `go_on` does what differs from process to process. To CPython it is a forked child. */
#define Py_BUILD_CORE 1
#include <Python.h>

#include "internal/pycore_gc.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"

#include <signal.h>
#include <sys/mman.h>

#include "image.h"

/* Where the image's memory lies, apart from the program's own: no kernel puts anything there by itself. */
#define MEMORY ((char *)0x10000000)

volatile int is_image;
static PyThreadState *main_thread;
static char *next = MEMORY;

extern _Thread_local PyThreadState *_Py_tss_tstate; /* Python/pystate.c */
void *__real___mmap(void *, size_t, int, int, int, off_t);
void *__real_mremap(void *, size_t, size_t, int, ...);

/* While the image is made, memory comes from the same addresses whatever kernel there is. */
void *__wrap___mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    if (is_image || address != NULL || !(flags & MAP_ANONYMOUS)) {
        return __real___mmap(address, size, protection, flags, file, offset);
    }
    address = next;
    next += (size + 0xfff) & ~(size_t)0xfff;
    return __real___mmap(address, size, protection, flags | MAP_FIXED, file, offset);
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    return __wrap___mmap(address, size, protection, flags, file, offset);
}

void *__wrap_mremap(void *address, size_t old, size_t size, int flags, ...)
{
    return is_image ? __real_mremap(address, old, size, flags) : MAP_FAILED; /* then realloc copies */
}

static void fail(void)
{
    PyErr_Print();
    exit(78);
}

static int make_immortal(PyObject *object, void *unused);

static void make_contents_immortal(PyObject *object)
{
    if (PyCode_Check(object)) { /* it has no tp_traverse */
        PyCodeObject *code = (PyCodeObject *)object;
        PyObject *parts[] = {code->co_consts,    code->co_names,           code->co_exceptiontable, code->co_localsplusnames,
                             code->co_filename,  code->co_localspluskinds, code->co_name,           code->co_qualname,
                             code->co_linetable};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            make_immortal(parts[i], NULL);
        }
    } else if (Py_TYPE(object)->tp_traverse != NULL) {
        Py_TYPE(object)->tp_traverse(object, make_immortal, NULL);
    }
}

static int make_immortal(PyObject *object, void *unused)
{
    if (object != NULL && !_Py_IsImmortal(object)) {
        object->ob_refcnt = _Py_IMMORTAL_REFCNT;
        if (!PyObject_GC_IsTracked(object)) {
            make_contents_immortal(object);
        }
    }
    return 0;
}

/* Have nobody count the references to what is in the image (PEP 683): to count is to write, and each page that is written
   to is copied, in each process. All that the garbage collector knows is in its permanent generation by now. */
static void make_all_immortal(void)
{
    PyGC_Head *all = &PyInterpreterState_Get()->gc.permanent_generation.head;
    for (PyGC_Head *one = _PyGCHead_NEXT(all); one != all; one = _PyGCHead_NEXT(one)) {
        PyObject *object = _Py_FROM_GC(one);
        make_immortal(object, NULL);
        make_contents_immortal(object);
    }
}

/* Load what the image has, and stop. Called in the build alone. */
void keep(void)
{
    PyObject *module = PyImport_ImportModule("_prepared");
    if (module == NULL || PyObject_CallMethod(module, "load", NULL) == NULL) {
        fail();
    }
    make_all_immortal();
    PyOS_BeforeFork();
    main_thread = _Py_tss_tstate;
    main_thread->native_thread_id = 0; /* or the image would differ from build to build */
    is_image = 1;
    raise(SIGSTOP);
    _exit(78);
}

/* The variables as CPython reads them when the module `posix` is made: of two with one name, the first counts. */
static PyObject *variables(void)
{
    PyObject *found = PyDict_New();
    for (char **variable = environ; found != NULL && *variable != NULL; variable++) {
        char *end = strchr(*variable, '=');
        if (end == NULL) {
            continue;
        }
        PyObject *name = PyBytes_FromStringAndSize(*variable, end - *variable), *value = PyBytes_FromString(end + 1);
        if (name == NULL || value == NULL || PyDict_SetDefault(found, name, value) == NULL) {
            fail();
        }
        Py_DECREF(name);
        Py_DECREF(value);
    }
    return found;
}

static PyObject *ignored_signals(void)
{
    PyObject *found = PyList_New(0);
    for (int number = 1; found != NULL && number < _NSIG; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN) {
            PyObject *item = PyLong_FromLong(number);
            if (item == NULL || PyList_Append(found, item) < 0) {
                fail();
            }
            Py_DECREF(item);
        }
    }
    return found;
}

/* Make this process one of its own, with its arguments, variables, signals and streams. */
void go_on(int argc, char **argv)
{
    _Py_tss_tstate = main_thread;
    memset(&_PyRuntime.autoTSSkey, 0, sizeof _PyRuntime.autoTSSkey);
    if (PyThread_tss_create(&_PyRuntime.autoTSSkey) || PyThread_tss_set(&_PyRuntime.autoTSSkey, main_thread)) {
        exit(78);
    }
    PyOS_AfterFork_Child();
    signal(SIGPIPE, SIG_IGN); /* as CPython does when it starts */
    signal(SIGXFSZ, SIG_IGN);
    PyObject *arguments = PyList_New(argc), *module = PyImport_ImportModule("_prepared");
    for (int i = 0; arguments != NULL && i < argc; i++) {
        PyList_SET_ITEM(arguments, i, PyUnicode_DecodeFSDefault(argv[i]));
    }
    if (module == NULL || arguments == NULL || PyErr_Occurred() ||
        PyObject_CallMethod(module, "go_on", "NNN", arguments, variables(), ignored_signals()) == NULL) {
        fail();
    }
}
