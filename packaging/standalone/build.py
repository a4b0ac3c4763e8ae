"""Builds the executable that needs no Python: dist/singleton-run-linux-MACHINE, its sums, licences and SBOM.

    python packaging/standalone/build.py [MACHINE]     x86_64, or aarch64 by a cross compiler

The base (CPython, OpenSSL, musl, libpq) is built once for each recipe and kept outside the tree, in
${XDG_CACHE_HOME:-~/.cache}/singleton-run. Our own modules are compiled and linked in each build: seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import image
import parts
from sources import HERE, Unbuildable, install_wheels, sources, unpack, wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = HERE.parents[1]
# One date for all builds: no file shows when it was built.
EPOCH = "1780272000"
RECIPE = ("base.sh", "Setup.local", "sources.txt")
TRIPLETS = {"x86_64": "", "aarch64": "aarch64-linux-gnu"}
_NEEDED = ("gcc", "make", "perl", "flex", "bison")
_DONE = "done"
_KEPT_FOR = 7 * 86400.0
SOURCES = ("main.c", "packed.c", "system.c", "signals.c", "libpq.c")
LIBRARIES = ("-lpq", "-lpgcommon_shlib", "-lpgport_shlib", "-lssl", "-lcrypto", "-lz", "-lm")


def kept() -> Path:
    """The folder that keeps the results of builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "singleton-run"


def name_of(machine: str) -> str:
    """The executable's file name."""
    return f"singleton-run-linux-{machine}"


def is_kept(machine: str) -> bool:
    """Whether the base is built: then a build of the executable takes seconds."""
    return (_base(machine) / _DONE).exists()


def _base(machine: str) -> Path:
    return kept() / f"standalone-{machine}-{_recipe()}"


def base(machine: str) -> Path:
    """The prefix with CPython and its libraries. Builds it if it isn't kept. Raises Unbuildable."""
    python = base("x86_64") / "bin/python3.13" if TRIPLETS[machine] else None
    folder = _base(machine)
    with _locked(f"standalone-{machine}-base"):
        if not is_kept(machine):
            _build_base(machine, folder, python)
    return folder


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold a lock of that name: of two builds at the same time, one waits for the other."""
    kept().mkdir(parents=True, exist_ok=True)
    with (kept() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_base(machine: str, folder: Path, python: Path | None) -> None:
    cross = TRIPLETS[machine]
    missing = [
        tool for tool in [*_NEEDED, *([f"{cross}-gcc"] if cross else [])] if shutil.which(tool) is None
    ]
    if missing:
        raise Unbuildable(f"needs {' '.join(missing)}: .ci/run has the packages' names")
    print(f"building {folder}: once, 10 minutes", file=sys.stderr, flush=True)
    work = folder.with_name(f"{folder.name}.work")
    for left in (work, folder):
        shutil.rmtree(left, ignore_errors=True)
    (work / "sources").mkdir(parents=True)
    for source in sources():
        unpack(source, kept(), work / "sources" / source.name)
    command = [
        "nice",
        str(HERE / "base.sh"),
        f"{work}/sources",
        f"{work}/build",
        str(folder),
        *([cross] if cross else []),
    ]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **({"PYTHON": str(python)} if python else {})}
    if subprocess.run(command, env=environ, check=False).returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise Unbuildable(f"the base can't be built: see the words above, and {work}")
    parts.keep_texts(work / "sources", folder / "licences")
    (folder / "lib/python3.13/lib-dynload").mkdir(parents=True, exist_ok=True)  # or CPython warns
    (folder / _DONE).touch()
    shutil.rmtree(work)


def _recipe() -> str:
    digest = hashlib.sha256()
    for name in RECIPE:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:12]


def packages() -> Path:
    """The folder with the Python packages. Raises Unbuildable."""
    digest = hashlib.sha256(repr(wheels()).encode()).hexdigest()[:12]
    folder = kept() / f"standalone-packages-{digest}"
    with _locked("standalone-packages"):
        if not folder.exists():
            install_wheels(folder)
    return folder


def plant(tree: Path, prefix: Path, installed: Path) -> None:
    """Lay out what modules.py reads: `own`, `shims`, `packages` and `stdlib`, by links."""
    (tree / "own").mkdir(parents=True)
    for package in [PROJECT / "singleton_run", *sorted((PROJECT / "backends").iterdir())]:
        (tree / "own" / package.name).symlink_to(package)
    shutil.copytree(HERE / "shims", tree / "shims")
    # If only some modules of a package are replaced, the other modules are copied beside the replacements.
    for folder, source in (
        ("zoneinfo", prefix / "lib/python3.13/zoneinfo"),
        ("kubernetes/config", installed / "kubernetes/config"),
    ):
        for file in sorted(source.glob("*.py")):
            if not (tree / "shims" / folder / file.name).exists():
                shutil.copy(file, tree / "shims" / folder / file.name)
    (tree / "packages").symlink_to(installed)
    (tree / "stdlib").symlink_to(prefix / "lib/python3.13")
    shutil.copytree(HERE / "start", tree / "start")
    shutil.copy(HERE / "prepared.py", tree / "prepared.py")


def write_zones(installed: Path, out: Path) -> None:
    """Write zones.bin and zones.h: the data of each time zone once, and each of its names."""
    root = installed / "tzdata/zoneinfo"
    zones = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".py"
    }
    zones = {name: data for name, data in zones.items() if data.startswith(b"TZif")}
    places: dict[bytes, int] = {}
    lines = []
    with (out / "zones.bin").open("wb") as blob:
        for name, data in sorted(zones.items(), key=lambda item: item[0].encode()):
            if data not in places:
                places[data] = blob.tell()
                blob.write(data)
            lines.append(f'    {{"{name}", {places[data]}, {len(data)}}},\n')
    head = (
        "/* Every time zone, compiled. Written by build.py. */\n"
        '__asm__(".section .rodata\\nzone_data:\\n.incbin \\"zones.bin\\"\\n.byte 0\\n.previous");\n'
        "extern const char zone_data[];\n"
        "static const struct zone {\n    const char *name;\n    unsigned start, size;\n} zone_table[] = {\n"
    )
    (out / "zones.h").write_text(head + "".join(lines) + "};\n", encoding="ascii")


def link(prefix: Path, out: Path, made: Path, *more: str) -> None:
    """Compile our C files and link them with the base, without symbols. Raises Unbuildable."""
    files = [str(HERE / "native" / name) for name in SOURCES]
    compile_c(
        prefix,
        made,
        *files,
        *more,
        "-Wall",
        "-Werror",
        f"-I{prefix}/include/python3.13",
        f"-I{out}",
        f"-Wa,-I,{out}",
        f"-ffile-prefix-map={HERE}=.",
        f"-ffile-prefix-map={out}=.",
        f"{prefix}/lib/libpython3.13.a",
        *LIBRARIES,
        "-Wl,--wrap=_PyConfig_InitPathConfig",
        "-Wl,--gc-sections",
        f"-Wl,--script={HERE}/native/no_unwinding.ld",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack,-z,relro",
    )
    subprocess.run(
        [f"{prefix}/bin/static-strip", "--strip-all", "--remove-section=.comment", str(made)], check=True
    )


def compile_c(prefix: Path, made: Path, *words: str) -> None:
    """Make a program by the base's compiler. Raises Unbuildable."""
    command = [f"{prefix}/bin/static-cc", "-o", str(made), f"-I{prefix}/include", f"-L{prefix}/lib", *words]
    if subprocess.run(command, check=False).returncode:
        raise Unbuildable(f"{made.name} can't be linked: see the words above")


def finished(machine: str) -> Path:
    """The folder with the executable of this tree and the files beside it. Raises Unbuildable."""
    with _locked(f"standalone-{machine}"):
        folder = kept() / f"standalone-{machine}.made-{_inputs()}"
        if not folder.exists():
            for old in kept().glob(f"standalone-{machine}.made-*"):
                if old.stat().st_mtime < time.time() - _KEPT_FOR:
                    shutil.rmtree(old)
            part = folder.with_name(f"standalone-{machine}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(machine, part)
            part.rename(folder)
    return folder


def make(machine: str, out: Path) -> None:
    """Make the executable in the new folder OUT. Raises Unbuildable."""
    prefix, host, installed = base(machine), base("x86_64"), packages()
    plant(out / "tree", host, installed)
    parts.write_texts(prefix / "licences", installed, out / "tree")
    environ = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    pack = out / "pack"
    compile_c(host, pack, str(HERE / "native/pack.c"), "-lz")
    options = ["-S", "-B", "-X", "no_debug_ranges"]
    words = [str(HERE / "modules.py"), str(out / "tree"), str(out), str(pack)]
    command = [f"{host}/bin/python3.13", *options, *words]
    if subprocess.run(command, env=environ, check=False).returncode:
        raise Unbuildable("the modules can't be compiled: see the words above")
    write_zones(installed, out)
    made = out / name_of(machine)
    if TRIPLETS[machine]:  # it can't be started here, so there is no image
        link(prefix, out, made)
    else:
        link(
            prefix,
            out,
            out / "first",
            *image.FLAGS,
            f"-Wl,-Map={out}/first.map",
            str(HERE / "native/image.c"),
        )
        image.write(out / "first", out / "first.map", made)
    link(prefix, out, out / "importer", "-DIMPORTER")
    parts.write_beside(made, out / "tree/licences.txt")
    shutil.rmtree(out / "tree")
    for file in ("pack", "first", "first.map"):
        (out / file).unlink(missing_ok=True)


def _inputs() -> str:
    """A digest of all inputs of the executable."""
    digest = hashlib.sha256(f"{_recipe()} {wheels()}".encode())
    folders = [HERE, PROJECT / "singleton_run", PROJECT / "backends"]
    files = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".c", ".h", ".ld", ".sh")
    ]
    for path in sorted([*files, PROJECT / "LICENSE"]):
        digest.update(f"{path.relative_to(PROJECT)} ".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def build(machine: str, dist: Path) -> Path:
    """Put the executable, its licences, SBOM and sums into `dist`. Returns its path. Raises Unbuildable."""
    folder = finished(machine)
    dist.mkdir(exist_ok=True)
    for file in sorted(folder.glob(f"{name_of(machine)}*")):
        part = dist / f".{file.name}.part"
        shutil.copy(file, part)
        part.replace(dist / file.name)
    return dist / name_of(machine)


if __name__ == "__main__":
    try:
        print(build(sys.argv[1] if sys.argv[1:] else "x86_64", PROJECT / "dist"))
    except Unbuildable as error:
        sys.exit(f"standalone: {error}")
