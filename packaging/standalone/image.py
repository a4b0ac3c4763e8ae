"""Writes the executable from the memory of its first start (native/image.c says what for).

The linked program is started once, without a random layout of its memory, and stops itself when it has loaded
all that it shall have. The new file has the same code and constants. In the place of the variables' first
values it has those of that moment, and the heap as further segments. The kernel maps them at a user's start.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import struct
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sources import Unbuildable

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = ("-DIMAGE", "-Wl,--wrap=mmap", "-Wl,--wrap=__mmap", "-Wl,--wrap=mremap")
"""What the program is compiled and linked with, beside image.c."""
_PAGE = 4096
# A hole of so many bytes without content is worth a segment of its own.
_HOLE = 3 * _PAGE
MEMORY = range(0x10000000, 0x20000000)
"""Where the memory of the image is, as native/image.c has it."""
_STACK = range(0x7FFF00000000, 0x800000000000)
# Libraries whose variables begin anew in each process: they know of the processor, the kernel or the process.
_BEGIN_ANEW = ("libssl", "libcrypto", "libpq", "libpgcommon_shlib", "libpgport_shlib", "libc", "libz")
# But malloc goes on: it has given out the memory that is in the image.
_GOES_ON = ("libc", "malloc.lo")
# malloc knows its own notes by a random number, which would differ from build to build.
_SECRET = b"malloc's"
_NO_RANDOM_LAYOUT = 0x0040000
_LOADED, _HEADER = 1, "<IIQQQQQQ"


class Segment(NamedTuple):
    """A program header of ELF (elf(5))."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    size: int
    in_memory: int
    alignment: int


class Variables(NamedTuple):
    """The variables of one object file: `library` is '' if it is in none."""

    section: str
    address: int
    size: int
    library: str
    object: str


def write(program: Path, link_map: Path, made: Path) -> None:
    """Write the executable `made` from the stripped `program` and the linker's map. Raises Unbuildable."""
    elf = program.read_bytes()
    segments = _segments(elf)
    (own,) = (one for one in segments if one.kind == _LOADED and one.flags & 2)
    first = elf[own.offset : own.offset + own.size].ljust(own.in_memory, b"\0")
    memory = _memory_of(program)
    variables = bytearray(first)
    for start, data in memory.items():
        if start < own.address + own.in_memory:
            low, high = max(start, own.address), min(start + len(data), own.address + own.in_memory)
            variables[low - own.address : high - own.address] = data[low - start : high - start]
    secret = b""
    for part in variables_of(link_map.read_text(encoding="utf-8")):
        place = slice(part.address - own.address, part.address - own.address + part.size)
        if part.section == ".data.prepared":  # they are loaded: nobody needs their code
            variables[place] = bytes(part.size)
        elif part.library in _BEGIN_ANEW and (part.library, part.object) != _GOES_ON:
            variables[place] = first[place]
        elif part.section == ".bss.__malloc_context":
            secret = bytes(variables[place][: len(_SECRET)])
    if not secret:
        raise Unbuildable("the linker's map doesn't say where malloc's notes are")
    end = own.address + own.in_memory
    areas = {start: data for start, data in memory.items() if end <= start < MEMORY.start}
    areas[own.address] = bytes(variables)
    areas[MEMORY.start] = _joined({start: data for start, data in memory.items() if start in MEMORY})
    areas = {start: data.replace(secret, _SECRET) for start, data in areas.items()}
    made.write_bytes(_file(elf, segments, own, areas))
    made.chmod(0o755)


def _segments(elf: bytes) -> list[Segment]:
    (start,), (count,) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<H", elf, 56)
    return [Segment(*struct.unpack_from(_HEADER, elf, start + 56 * number)) for number in range(count)]


def _memory_of(program: Path) -> dict[int, bytes]:
    """What the program has written when it stops itself, by address. Raises Unbuildable."""
    process = subprocess.Popen(
        ["singleton-run"],
        executable=f"./{program.name}",  # a name that is the same everywhere, for it is in the memory
        env={"TZ": "UTC0"},
        cwd=program.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=_begin_as_everywhere,  # noqa: PLW1509 - there is one thread
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        process.returncode = os.waitstatus_to_exitcode(status)
        told = process.communicate()[1].decode(errors="replace")
        raise Unbuildable(f"the program for the image ends with {process.returncode}: {told}")
    try:
        return _written(process.pid)
    finally:
        process.kill()
        process.communicate()


def _begin_as_everywhere() -> None:
    """Let the process have the same addresses and signals wherever it is started."""
    ctypes.CDLL(None).personality(_NO_RANDOM_LAYOUT)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _written(process: int) -> dict[int, bytes]:
    """The areas of memory that a stopped process can write, but its stack. Raises Unbuildable."""
    found = {}
    with (
        open(f"/proc/{process}/maps", encoding="ascii") as maps,
        open(f"/proc/{process}/mem", "rb", 0) as memory,
    ):
        for line in maps:
            place, rights, *rest = line.split()
            start, end = (int(number, 16) for number in place.split("-"))
            if "w" not in rights or "[stack]" in rest:
                continue
            if start >= MEMORY.stop:
                raise Unbuildable(f"the image has memory at {start:x}, where other things may lie")
            memory.seek(start)
            data = memory.read(end - start)
            found[start] = _without_stack(data) if start in MEMORY else data
    return found


def _without_stack(data: bytes) -> bytes:
    """The same without addresses in the stack: they are left over, and each kernel has others."""
    words = memoryview(bytearray(data)).cast("Q")
    for number in (number for number, word in enumerate(words) if word in _STACK):
        words[number] = 0
    return words.tobytes()


def _joined(areas: dict[int, bytes]) -> bytes:
    """All from MEMORY.start on, with zeros where there is nothing."""
    made = bytearray()
    for start, data in sorted(areas.items()):
        made = made.ljust(start - MEMORY.start, b"\0") + data
    return bytes(made)


def variables_of(text: str) -> list[Variables]:
    """The variables of all object files, as the linker's map lists them."""
    found = []
    for section, address, size, file in re.findall(
        r"^ (\.data\S*|\.bss\S*|COMMON)\s+0x(\w+)\s+0x(\w+)\s+(\S+)$", text, re.MULTILINE
    ):
        inside = re.search(r"/(\w[\w.]*)\.a\((.+)\)$", file)
        library, member = inside.groups() if inside else ("", file)
        if int(address, 16):
            found.append(Variables(section, int(address, 16), int(size, 16), library, member))
    return found


def _file(elf: bytes, segments: list[Segment], own: Segment, areas: dict[int, bytes]) -> bytes:
    """The new program: all up to its variables as in `elf`, and then the areas of memory, by address."""
    made = bytearray(elf[: own.offset])
    written = []
    for start, data in sorted(areas.items()):
        for low, high, end in _runs(start, data):
            made += bytes((start + low - len(made)) % _PAGE)
            place = start + low
            written.append(Segment(_LOADED, 6, len(made), place, place, high - low, end - low, _PAGE))
            made += data[low:high]
    place = segments.index(own)
    headers = [*segments[:place], *written, *segments[place + 1 :]]
    size = 64 + 56 * len(headers)
    if size > segments[1].offset:
        raise Unbuildable(f"the image has {len(headers)} segments: more than there is room for")
    headers[0] = headers[0]._replace(size=size, in_memory=size)
    for number, one in enumerate(headers):
        struct.pack_into(_HEADER, made, 64 + 56 * number, *one)
    struct.pack_into("<Q", made, 40, 0)  # there are no sections: they are for linkers
    struct.pack_into("<HHHH", made, 56, len(headers), 64, 0, 0)
    return bytes(made)


def _runs(start: int, data: bytes) -> list[tuple[int, int, int]]:
    """The parts of an area with content: where each begins and ends, and where the zeros after it end."""
    edges = [0, *range(_PAGE - start % _PAGE, len(data), _PAGE), len(data)]
    runs: list[tuple[int, int]] = []
    for low, high in pairwise(edges):
        if low and data.count(0, low, high) == high - low:
            continue
        if runs and low - runs[-1][1] < _HOLE:
            runs[-1] = (runs[-1][0], high)
        else:
            runs.append((low, high))
    ends = [*(low for low, _ in runs[1:]), len(data)]
    return [(low, high, end) for (low, high), end in zip(runs, ends, strict=True)]
