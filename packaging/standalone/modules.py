"""Finds every module that the executable needs, compiles it, and writes them as blobs with tables in C.

    python3.13 -S modules.py TREE OUT PACK

That Python is the one that is linked into the executable. TREE has the folders `own` (this project), `shims`,
`packages` and `stdlib`, which are searched in this order. The program imports each module of ours, and each
module that these import inside of functions: the loaded modules are the needed ones. It is an error if a
module of ours can't be imported, or imports a module that is neither in TREE nor in LEFT_OUT. PACK is
native/pack.c, compiled.
"""

from __future__ import annotations

import ast
import json
import marshal
import os
import subprocess
import sys

# Modules that our code imports and that aren't in the executable, and why that is no fault.
LEFT_OUT = {
    "etcd3": "etcd+grpc is refused by the registry",
    "grpc": "etcd+grpc is refused by the registry",
    "importlib.metadata": "nothing is installed: the registry knows",
    "ctypes": "_singleton_run and _libpq are there",
    "_ctypes": "system/libc.py has the module _singleton_run instead",
    "hashlib": "_blake2 is there",
    "ssl": "_ssl is there",
    "site": "late_site has nothing to load",
    "socket": "_socket is there",
}
OWN = ("singleton_run", "singleton_run_")
NOT_OWN = (
    "singleton_run.testing",
    "singleton_run.reporter.endpoints",
    "singleton_run.reporter.health",
    "singleton_run.reporter.http_server",
    "singleton_run.reporter.leader",
    "singleton_run.reporter.metrics_file",
    "singleton_run.reporter.series",
    "singleton_run.reporter.text_format",
    "singleton_run_etcd.grpc",
    "singleton_run_postgres.libpq_shared",
)
# Packages whose imports inside of functions are followed too. For the standard library, BESIDE lists these.
FOLLOWED = ("click", "croniter", "dateutil", "kubernetes", "rich", "yaml")
# Imported by C code, by code with a computed name, or by functions of the standard library that we call.
BESIDE = (
    "_strptime",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.punycode",
    "encodings.utf_8",
    "encodings.utf_8_sig",
    "locale",
    "shutil",
    "signal",
    "zoneinfo",
)
# Our own modules in C, and the import statement's own.
MADE_IN_C = ("_singleton_run", "_libpq", "_packed", "_frozen_importlib", "_frozen_importlib_external")
# What we never ask for, and what stands in its place: we show texts as they are, `:boom:` too. rich reads
# themes from files by configparser, and keeps what a click does by pickle; pathlib has Windows' paths.
EMPTIED = {
    "configparser": b"\n",
    "ntpath": b"\n",
    "pickle": b"dumps = loads = None\n",
    "rich._emoji_codes": b"EMOJI = {}\n",
    # Each `from __future__ import annotations` loads it, for a name that nobody looks at.
    "__future__": b"annotations = absolute_import = division = print_function = unicode_literals = None\n",
}
# Python's own import statement, under the names that CPython asks for. zipimport isn't among them.
IMPORT_STATEMENT = {
    "_frozen_importlib": "importlib/_bootstrap",
    "_whole_importlib_external": "importlib/_bootstrap_external",
}
# What every start of CPython loads, in a form that loads less: its file in `start`, and whether it is a
# package.
STARTING = {
    "_frozen_importlib_external": ("importlib_external", False),
    "encodings": ("encodings", True),
}
# Only other systems, other kinds of terminals, or other programs import these.
NEVER = (
    "_winapi",
    "_winconsole",
    "_winreg",
    "asyncio",
    "click._winconsole",
    "click.testing",
    "colorama",
    "ctypes",
    "dateutil.tzwin",
    "dateutil.zoneinfo",
    "doctest",
    "email",
    "http",
    "importlib.metadata",
    "msvcrt",
    "nt",
    "ntpath",
    "pdb",
    "pydoc",
    "pygments",
    "google",
    "html",
    "test",
    "tkinter",
    "rich._win32_console",
    "rich._windows",
    "rich._windows_renderer",
    "rich.markdown",
    "rich.syntax",
    "rich.traceback",
    "unittest",
    "urllib.request",
    "winreg",
    "IPython",
    "attr",
    "yaml.cyaml",
    "yaml._yaml",
    "_yaml",
    "google.auth",
    "pty",
    "webbrowser",
)

_LOADER = """
import sys
sys.path[:] = {path!r}
class _Missing:
    def __init__(self, *words): pass
    def __call__(self, *words): return 0
    def __getattr__(self, name): return _Missing()
module = type(sys)
for name in ("_singleton_run", "_libpq", "_packed"):
    made = sys.modules[name] = module(name)
    made.__getattr__ = lambda name: _Missing()
before = set(sys.modules)
failed = {{}}
for name in {names!r}:
    try:
        __import__(name)
    except ImportError as error:
        failed[name] = str(error)
found = {{}}
for name, loaded in sorted(sys.modules.items()):
    spec = getattr(loaded, "__spec__", None)
    if spec is not None:
        found[name] = [spec.name, spec.origin or "", spec.submodule_search_locations is not None]
import json
print(json.dumps([found, failed]))
"""


class Needed:
    """Collects the modules that are needed: `found` has the path of each, and whether it is a package."""

    def __init__(self, tree: str) -> None:
        self._path = [f"{tree}/{name}" for name in ("own", "shims", "packages", "stdlib")]
        self.found: dict[str, tuple[str, bool]] = {}

    def close(self, names: set[str]) -> None:
        """Import these, then the modules that they import inside of functions, until there is nothing new."""
        tried: set[str] = set()
        while new := names - tried:
            tried |= new
            failed = self._load(sorted(tried))
            for name, why in failed.items():
                if _is_in(name, OWN):
                    sys.exit(f"modules.py: {name} can't be imported: {why}")
            for name, (path, is_package) in self.found.items():
                if _is_in(name, (*OWN, *FOLLOWED)):
                    names |= {
                        wanted
                        for wanted in self._asked_for(name, path, is_package)
                        if not _is_in(wanted, NEVER)
                    }

    def _load(self, names: list[str]) -> dict[str, str]:
        code = _LOADER.format(path=self._path, names=names)
        command = [sys.executable, "-I", "-S", "-B", "-c", code]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        loaded, failed = json.loads(done.stdout)
        self.found = {}
        for name, (real, origin, is_package) in loaded.items():
            if origin == "frozen" or origin.endswith(".py"):
                path = self._source(real, is_package) if origin == "frozen" else origin
                self.found[name] = (path, is_package)
        return dict(failed)

    def _source(self, name: str, is_package: bool) -> str:
        """The source of a module that CPython has frozen; '' if there is no file of that name."""
        path = f"{self._path[-1]}/{name.replace('.', '/')}{'/__init__' if is_package else ''}.py"
        return path if os.path.exists(path) else ""

    def _asked_for(self, name: str, path: str, is_package: bool) -> set[str]:
        """The modules that a module imports anywhere, if they exist. For one of ours, all must exist."""
        wanted = set()
        for module, part in imports(path, name if is_package else name.rpartition(".")[0]):
            if module in LEFT_OUT and _is_in(name, OWN):
                continue
            if not self._is_there(module):
                if _is_in(name, OWN):
                    sys.exit(f"modules.py: {name} imports {module}, which is not here and not in LEFT_OUT")
                continue
            wanted.add(module)
            if part and self._is_there(f"{module}.{part}"):
                wanted.add(f"{module}.{part}")
        return wanted - set(NOT_OWN)

    def _is_there(self, name: str) -> bool:
        if name in sys.builtin_module_names or name in MADE_IN_C:
            return True
        places = [f"{folder}/{name.replace('.', '/')}" for folder in self._path]
        return any(
            os.path.exists(f"{place}.py") or os.path.exists(f"{place}/__init__.py") for place in places
        )


def _is_in(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these packages, or in one. `name_` means each that begins with it."""
    return any(
        name == package
        or name.startswith(f"{package}.")
        or (package.endswith("_") and name.startswith(package))
        for package in packages
    )


def imports(path: str, package: str) -> set[tuple[str, str]]:
    """Each import in a file as (module, the name taken from it or ''), without imports for types only."""
    if not path:
        return set()
    with open(path, "rb") as file:
        return set(_imports(ast.parse(file.read()), package))


def _imports(node: ast.AST, package: str) -> list[tuple[str, str]]:
    found = []
    if isinstance(node, ast.If) and any(
        word in ast.dump(node.test) for word in ("TYPE_CHECKING", "__main__")
    ):
        return [pair for child in node.orelse for pair in _imports(child, package)]
    if isinstance(node, ast.Import):
        found = [(alias.name, "") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        found = [(module, alias.name) for alias in node.names]
    for child in ast.iter_child_nodes(node):
        found += _imports(child, package)
    return found


def own_modules(folder: str) -> set[str]:
    """The names of all modules of ours below `folder`."""
    names = set()
    for base, _, files in os.walk(folder, followlinks=True):
        if base == folder:
            continue
        package = os.path.relpath(base, folder).replace("/", ".")
        for file in files:
            name = package if file == "__init__.py" else f"{package}.{file.removesuffix('.py')}"
            if file.endswith(".py") and not _is_in(name, NOT_OWN):
                names.add(name)
    return names


def newest_widths(folder: str) -> str:
    """The newest version of Unicode of which rich knows how wide each character is.

    Only that one is in the executable: rich takes another where UNICODE_VERSION names one.
    """
    named = [file for file in os.listdir(folder) if file.startswith("unicode")]
    numbers = [file.removeprefix("unicode").removesuffix(".py").split("-") for file in named]
    return ".".join(max(numbers, key=lambda parts: [int(part) for part in parts]))


def write(found: dict[str, tuple[str, bool]], prepared: set[str], out: str, pack: str) -> None:
    """Write the files of OUT: modules.h and prepared.bin, packed.h and packed.bin, and modules.txt.

    `prepared` are the modules that are loaded at each start. The program `pack` compresses all others.
    """
    frozen, packed = [], []
    with open(f"{out}/prepared.bin", "wb") as loaded, open(f"{out}/packed.bin", "wb") as rest:
        for name, (path, is_package) in sorted(found.items()):
            if not path:
                continue
            code = _compiled(name, path)
            if name in prepared:
                place = f"prepared_data + {loaded.tell()}, {len(code)}"
                frozen.append(f'    {{"{name}", {place}, {int(is_package)}}},')
                loaded.write(code)
            else:
                done = subprocess.run([pack], input=code, stdout=subprocess.PIPE, check=True)
                place = f"{rest.tell()}, {len(done.stdout)}, {len(code)}"
                packed.append(f'    {{"{name}", {place}, {int(is_package)}}},')
                rest.write(done.stdout)
    _write_lines(f"{out}/modules.h", [_FROZEN, *frozen, "    {0, 0, 0, 0},", "};"])
    _write_lines(f"{out}/packed.h", [_PACKED, *packed, "};"])
    _write_lines(f"{out}/modules.txt", sorted(name for name, (path, _) in found.items() if path))


def _compiled(name: str, path: str) -> bytes:
    with open(path, "rb") as file:
        source = EMPTIED.get(name) or file.read()
    shown = f"{name.replace('.', '/')}.py"  # the same name wherever the file is
    tree = ast.parse(source, shown)
    if _is_in(name, OWN):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.returns = None
            elif isinstance(node, ast.arg):
                node.annotation = None
    return marshal.dumps(compile(tree, shown, "exec", dont_inherit=True, optimize=2))


def _write_lines(path: str, lines: list[str]) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(f"{line}\n" for line in lines))


_FROZEN = """\
/* The modules that are loaded at each start. Written by modules.py. */
__asm__(".section .data.prepared, \\"aw\\"\\n.balign 4096\\nprepared_data:\\n.incbin \\"prepared.bin\\"\\n"
        ".balign 4096\\n.previous");
extern const unsigned char prepared_data[];
static const struct _frozen modules[] = {"""
_PACKED = """\
/* All other modules, compressed. Written by modules.py. */
__asm__(".section .rodata\\npacked_data:\\n.incbin \\"packed.bin\\"\\n.previous");
extern const unsigned char packed_data[];
static const struct packed {
    const char *name;
    unsigned start, packed, size;
    int is_package;
} packed_table[] = {"""


def main(tree: str, out: str, pack: str) -> None:
    """Find, compile and write the modules: see the top of this file."""
    sys.path.insert(0, f"{tree}/own")
    from prepared import names

    needed = Needed(tree)
    widths = newest_widths(f"{tree}/packages/rich/_unicode_data")
    EMPTIED["rich._unicode_data._versions"] = f"VERSIONS = ({widths!r},)\n".encode()
    table = f"rich._unicode_data.unicode{widths.replace('.', '-')}"
    needed.close(own_modules(f"{tree}/own") | set(BESIDE) | {table})
    needed.found.pop("zipimport", None)  # CPython would load it at each start, and there is no such file
    needed.found["_prepared"] = (f"{tree}/prepared.py", False)
    for name, file in IMPORT_STATEMENT.items():
        needed.found[name] = (f"{tree}/stdlib/{file}.py", False)
    for name, (file, is_package) in STARTING.items():
        needed.found[name] = (f"{tree}/start/{file}.py", is_package)
    write(needed.found, set(names()), out, pack)


if __name__ == "__main__":
    main(*sys.argv[1:])
