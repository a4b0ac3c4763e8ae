"""Root directories as images have them, laid out in a folder.

Alpine's own files can't be had on a Debian: instead of its image there is a root with musl's libc and a
program that is linked with it. Debian's minimal tree is made of the machine's own packages, those that
debootstrap's minbase has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import TREE

DOCKERFILE = TREE / "packaging" / "images" / "Dockerfile"
JOB = Path(__file__).with_name("job.c")
_PLACES = ("proc", "dev", "tmp", "run", "shared")
# Of a package these are files that its programs need.
_NEEDED = re.compile(r"/(bin|sbin|lib|lib64|usr/bin|usr/sbin|usr/lib|etc)/")


class Root:
    """An image's root directory.

    `mounts` are what it has of the machine, as `tests.support.container` takes them. `command` says who it is
    and ends with 7; `wait` says it too, and goes on until it gets SIGTERM. In an image that can't, `command`
    says what `says` has and ends with `status`, and `wait` is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts: list[str] = []
        self.command = ["/bin/job"]
        self.wait = ["/bin/job", "wait"]
        self.says = "user 12345, root is read-only"
        self.status = 7
        folder.mkdir(mode=0o755)
        for place in _PLACES:
            (folder / place).mkdir(mode=0o755)

    def put(self, file: Path, place: str = "") -> None:
        """Copy a file to a place, or to the same one as here; a link becomes what it leads to."""
        to = self.folder / (place or str(file)).lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists():
            shutil.copy(file, to)

    def put_libraries(self, *programs: Path) -> None:
        """Copy what programs are linked with, and their loader."""
        for program in programs:
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
            for library in re.findall(r"(/\S+) \(0x", listed):
                self.put(Path(library))

    def compile(self, *compiler: str) -> Path:
        """Compile the command; where it is here."""
        program = self.folder / "bin" / "job"
        program.parent.mkdir(exist_ok=True)
        subprocess.run([needed(compiler[0]), *compiler[1:], "-o", program, JOB], check=True)
        return program


def needed(program: str) -> str:
    """The path of a program. Skips the test without it."""
    packages = {"busybox": "busybox-static", "musl-gcc": "musl-tools", "java": "default-jre-headless"}
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {packages.get(program, program)}")
    return found


def scratch(folder: Path, executable: Path) -> Root:
    """The image of our Dockerfile, and a static program."""
    root = Root(folder)
    root.put(executable, copied(executable)[1])
    root.compile("musl-gcc", "-static")
    return root


def copied(executable: Path) -> tuple[str, str]:
    """What the Dockerfile copies, for this machine's executable, and where to."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    machine = re.match(r"singleton-run-linux-(\w+)$", executable.name)
    (words,) = [line.split() for line in lines if line.startswith("COPY ")]
    return words[-2].replace("${MACHINE}", machine[1] if machine else ""), words[-1]


def busybox(folder: Path) -> Root:
    """One static program of many names."""
    root = Root(folder)
    root.put(Path(needed("busybox")), "/bin/busybox")
    for name in ("sh", "id", "sleep", "touch"):
        (folder / "bin" / name).symlink_to("busybox")
    written = "$(touch /written 2>/dev/null && echo writable || echo read-only)"
    script = f"trap 'exit 7' TERM; echo user $(id -u), root is {written}; $1"
    root.command = ["/bin/sh", "-c", script, "sh", "exit 7"]
    root.wait = ["/bin/sh", "-c", script, "sh", "eval while sleep 0.05; do :; done"]
    return root


def alpine(folder: Path) -> Root:
    """As Alpine's: a libc that is musl, and a program that is linked with it."""
    root = Root(folder)
    program = root.compile("musl-gcc")
    (loader,) = re.findall(rb"/lib/ld-musl-\w+\.so\.1", program.read_bytes())
    root.put(Path(loader.decode()))
    return root


def debian(folder: Path) -> Root:
    """Debian's required packages and what they depend on; none of Python."""
    root = Root(folder)
    files = subprocess.run(
        ["dpkg-query", "-L", *_required()], capture_output=True, text=True, check=True
    ).stdout
    for file in map(Path, dict.fromkeys(files.splitlines())):
        if _NEEDED.match(str(file)) and file.is_file():
            root.put(file)
    root.compile("gcc")
    return root


def _required() -> list[str]:
    """The names of these packages. Skips the test where there is no dpkg."""
    needed("dpkg-query")
    fields = "${Package}\t${Priority}\t${Pre-Depends}, ${Depends}\n"
    listed = subprocess.run(["dpkg-query", "-Wf", fields], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    needs = {name: re.findall(r"(?:^|, )([a-z0-9.+-]+)", depends) for name, _, depends in rows}
    found = [name for name, priority, _ in rows if priority == "required"]
    for name in found:
        found += [other for other in needs[name] if other in needs and other not in found]
    return sorted(found)


def glibc(folder: Path) -> Root:
    """As .NET's images: a program that is linked with glibc, its libraries, and no more."""
    root = Root(folder)
    root.put_libraries(root.compile("gcc", "-Wl,--no-as-needed", "-lm", "-ldl", "-lpthread"))
    return root


def java(folder: Path) -> Root:
    """As a JRE's image: glibc and the machine's Java."""
    root = glibc(folder)
    home = Path(needed("java")).resolve().parents[1]
    (folder / str(home)[1:]).mkdir(parents=True)
    root.mounts.append(f"ro:{home}:{home}")
    if (home / "conf").is_symlink():
        settings = (home / "conf").resolve()
        (folder / str(settings)[1:]).mkdir(parents=True)
        root.mounts.append(f"ro:{settings}:{settings}")
    root.put_libraries(home / "bin" / "java", *(home / "lib").rglob("*.so"))
    root.command, root.wait = [f"{home}/bin/java", "-version"], []
    root.says, root.status = "Runtime Environment", 0
    return root
