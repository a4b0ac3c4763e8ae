/* The executable: CPython with every module inside, which looks for nothing outside. */
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include "image.h"
#include "modules.h"

PyMODINIT_FUNC PyInit__singleton_run(void);
PyMODINIT_FUNC PyInit__libpq(void);
PyMODINIT_FUNC PyInit__packed(void);

/* All that CPython may import, in place of its own tables (Python/frozen.c), whose modules have texts for people too. */
struct _module_alias {
    const char *name, *original;
};
static const struct _frozen none[] = {{0, 0, 0, 0}};
static const struct _module_alias aliases[] = {
    {"_frozen_importlib", "importlib._bootstrap"},
    {"_frozen_importlib_external", "importlib._bootstrap_external"},
    {"os.path", "posixpath"},
    {0, 0},
};
const struct _frozen *_PyImport_FrozenBootstrap = modules;
const struct _frozen *_PyImport_FrozenStdlib = none;
const struct _frozen *_PyImport_FrozenTest = none;
const struct _module_alias *_PyImport_FrozenAliases = aliases;
const struct _frozen *PyImport_FrozenModules = NULL;

static void check(PyStatus status)
{
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

/* In place of CPython's search (Modules/getpath.py): it would obey a `pyvenv.cfg` or `._pth` that lies beside us. */
PyStatus __wrap__PyConfig_InitPathConfig(PyConfig *config, int compute)
{
    return PyStatus_Ok();
}

/* Ctrl-C ends the program, also while it starts: Python's own handler would print a traceback. */
static int leave_interrupt_alone(void)
{
    int failed = 1;
    PyObject *signals = PyImport_ImportModule("_signal"), *own = NULL, *now = NULL, *before = NULL;
    if (signals != NULL && (own = PyObject_GetAttrString(signals, "default_int_handler")) != NULL &&
        (now = PyObject_CallMethod(signals, "getsignal", "i", SIGINT)) != NULL) {
        before = now == own ? PyObject_CallMethod(signals, "signal", "ii", SIGINT, 0) : Py_NewRef(now);
        failed = before == NULL;
    }
    Py_XDECREF(before);
    Py_XDECREF(now);
    Py_XDECREF(own);
    Py_XDECREF(signals);
    return failed;
}

static void initialize(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    before.configure_locale = 0; /* musl knows no other than UTF-8 */
    check(Py_PreInitialize(&before));

    if (PyImport_AppendInittab("_singleton_run", PyInit__singleton_run) < 0 ||
        PyImport_AppendInittab("_libpq", PyInit__libpq) < 0 ||
        PyImport_AppendInittab("_packed", PyInit__packed) < 0) {
        exit(78);
    }

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 1;
    config.pathconfig_warnings = 0;
    config.parse_argv = 0;
    config.use_frozen_modules = 1;
    config.optimization_level = 2;
    config.code_debug_ranges = 1; /* nothing has columns: to 0, CPython would write each function's table of lines anew */
#ifdef IMAGE
    config.use_hash_seed = 1; /* the same image in each build */
    config.hash_seed = 0;
#endif
    /* There is no folder of modules. */
    config.module_search_paths_set = 1;
    wchar_t **empty[] = {&config.program_name, &config.executable, &config.base_executable, &config.prefix,
                         &config.base_prefix, &config.exec_prefix, &config.base_exec_prefix, &config.stdlib_dir, &config.home};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        check(PyConfig_SetString(&config, empty[i], L""));
    }
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    sigset_t interrupt, before_us;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before_us);
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    if (leave_interrupt_alone()) {
        PyErr_Print();
        exit(78);
    }
    sigprocmask(SIG_SETMASK, &before_us, NULL);
}

#ifdef IMPORTER
/* For tests, and no part of what is given to anybody: import each module that is named, and say which can't be. */
int main(int argc, char **argv)
{
    initialize(argc, argv);
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        PyObject *module = PyImport_ImportModule(argv[i]);
        if (module == NULL) {
            failed = 1;
            fprintf(stderr, "%s: ", argv[i]);
            PyErr_Print();
        }
        Py_XDECREF(module);
    }
    return failed;
}
#else
/* What a replica is while it rests for long (singleton_run/front/rest.py). Its arguments are a title, which ps shows,
   `--rest`, descriptors (`3,4,5`), and the arguments of singleton-run from its argv[0] on. When one of the descriptors is
   readable, it executes this same file again, which gets the last of them. */
static int rest(int argc, char **argv)
{
    char **arguments = calloc(argc - 2, sizeof *arguments), *end = argv[argc - 1] + strlen(argv[argc - 1]);
    for (int i = 3; arguments != NULL && i < argc; i++) {
        arguments[i - 3] = strdup(argv[i]);
    }
    struct pollfd waited_for[8];
    nfds_t count = 0;
    char *next = argv[2];
    do {
        waited_for[count++] = (struct pollfd){.fd = (int)strtol(next, &next, 10), .events = POLLIN};
    } while (*next++ == ',' && count < sizeof waited_for / sizeof *waited_for);
    for (nfds_t i = 0; i + 1 < count; i++) {
        fcntl(waited_for[i].fd, F_SETFD, FD_CLOEXEC);
    }
    prctl(PR_SET_NAME, "singleton-run");
    memset(argv[0] + strlen(argv[0]), 0, end - argv[0] - strlen(argv[0]));
    while (poll(waited_for, count, -1) < 0 && errno == EINTR) {
    }
    execv("/proc/self/exe", arguments);
    fprintf(stderr, "singleton-run: can't go on after a rest: /proc/self/exe: %s: start it again\n", strerror(errno));
    return 78;
}

int main(int argc, char **argv)
{
    if (argc > 3 && strncmp(argv[0], "singleton-run: ", 15) == 0 && strcmp(argv[1], "--rest") == 0) {
        return rest(argc, argv);
    }
#ifdef IMAGE
    if (is_image) {
        go_on(argc, argv);
    } else {
        initialize(argc, argv);
        keep();
    }
#else
    initialize(argc, argv);
#endif
    PyObject *program = PyImport_ImportModule("singleton_run.__main__");
    if (program != NULL) {
        PyObject_CallMethod(program, "main", NULL); /* it exits */
    }
    PyErr_Print(); /* this exits for SystemExit */
    return 78;
}
#endif
