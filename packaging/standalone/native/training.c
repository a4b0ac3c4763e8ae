/* Shows the compiler which paths through CPython a start takes (base.sh, gcc's -fprofile-use). It does the same each time
 * and everywhere, down to the addresses of objects, because the executable has to be the same bytes: it reads no file and
 * no environment, works in the root, hashes without a random key, and asks the kernel for the same addresses. */
#include <Python.h>

#include <sys/personality.h>
#include <unistd.h>

/* Written by CPython's _freeze_module: no start goes without these three, and CPython reads them from files. */
#include "encodings.h"
#include "encodings.aliases.h"
#include "encodings.utf_8.h"

static const struct _frozen modules[] = {
    {"encodings", _Py_M__encodings, sizeof _Py_M__encodings, 1},
    {"encodings.aliases", _Py_M__encodings_aliases, sizeof _Py_M__encodings_aliases, 0},
    {"encodings.utf_8", _Py_M__encodings_utf_8, sizeof _Py_M__encodings_utf_8, 0},
    {0, 0, 0, 0},
};

/* In place of CPython's search, as in main.c. */
PyStatus __wrap__PyConfig_InitPathConfig(PyConfig *config, int compute)
{
    return PyStatus_Ok();
}

static const char *const work =
    "import os, abc, io, codecs, stat, posixpath, genericpath, site\n"
    "import _collections_abc, _sitebuiltins, errno, marshal, _imp, sys\n"
    "import _json, _struct, binascii, select, fcntl, mmap, _socket, math\n"
    "class Failure(Exception):\n"
    "    def __init__(self, status, text):\n"
    "        super().__init__(text)\n"
    "        self.status = status\n"
    "class Point:\n"
    "    __slots__ = ('x', 'y')\n"
    "    def __init__(self, x, y=0):\n"
    "        self.x, self.y = x, y\n"
    "    @property\n"
    "    def size(self):\n"
    "        return self.x * self.x + self.y * self.y\n"
    "def steps(count):\n"
    "    got = None\n"
    "    for number in range(count):\n"
    "        got = yield number, got\n"
    "def work(number):\n"
    "    text = f'name-{number}={number!r}'\n"
    "    name, _, value = text.partition('=')\n"
    "    table = {name: value, 'words': text.split('-'), 'point': Point(number, y=2)}\n"
    "    try:\n"
    "        if number % 3 == 0:\n"
    "            raise Failure(78, 'no %s' % name)\n"
    "        table['size'] = table['point'].size\n"
    "    except Failure as failure:\n"
    "        table['status'] = failure.status\n"
    "    machine = steps(4)\n"
    "    sent = [next(machine)]\n"
    "    for _ in range(3):\n"
    "        sent.append(machine.send(len(sent)))\n"
    "    found = sorted(key for key in table if key != 'words')\n"
    "    data = ','.join([*found, *map(str, sent)]).encode('utf-8')\n"
    "    head = int.from_bytes(data[:4], 'little') & 0xFFFF\n"
    "    return {bytes([byte]).decode() for byte in data[:8]} | {str(head)}\n"
    "for number in range(40):\n"
    "    work(number)\n"
    "for name in ('os', 'stat', 'posixpath', 'abc', 'codecs', 'io', 'site', '_collections_abc'):\n"
    "    code = _imp.get_frozen_object(name)\n"
    "    for _ in range(4):\n"
    "        marshal.loads(marshal.dumps(code))\n"
    "    for _ in range(2):\n"
    "        exec(code, {'__name__': name, '__builtins__': __builtins__})\n"
    "scan = _json.make_scanner\n"
    "encode = _json.encode_basestring_ascii\n"
    "for number in range(20):\n"
    "    encode('a text \\u00e9 ' * number)\n";

static void check(PyStatus status)
{
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

int main(int argc, char **argv)
{
    int now = personality(0xffffffff);
    if (!(now & ADDR_NO_RANDOMIZE) && personality(now | ADDR_NO_RANDOMIZE) >= 0) {
        char *environment[] = {NULL};
        execve("/proc/self/exe", (char *[]){"training", NULL}, environment);
    }
    if (chdir("/") != 0) {  /* os asks for the folder, and the length of its name would be counted */
        return 1;
    }
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    before.configure_locale = 0;
    check(Py_PreInitialize(&before));
    PyImport_FrozenModules = modules;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.parse_argv = 0;
    config.use_frozen_modules = 1;
    config.optimization_level = 2;
    config.code_debug_ranges = 0;
    config.use_hash_seed = 1;
    config.module_search_paths_set = 1;
    wchar_t **empty[] = {&config.program_name, &config.executable, &config.base_executable, &config.prefix,
                         &config.base_prefix, &config.exec_prefix, &config.base_exec_prefix, &config.stdlib_dir, &config.home};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        check(PyConfig_SetString(&config, empty[i], L""));
    }
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return PyRun_SimpleString(work) ? 1 : 0;
}
