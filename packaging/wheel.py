"""Makes the wheel for Linux, whose command is the executable, of the wheel for any platform.

    python packaging/wheel.py WHEEL EXECUTABLE

It has all that WHEEL has. Only `singleton-run` is the executable there, and the Python command has another
name beside it (singleton_run/system/beside.py). The executable's licences and SBOM go with it. The new wheel
lies beside WHEEL; of the same files it is the same, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

OURS, PYTHONS = "singleton-run", "singleton-run-python"
# A static file needs no libc: each Linux for which there are wheels at all is one of these two.
PLATFORMS = ("manylinux_2_17", "musllinux_1_1")
_EXECUTABLE = 0o100755
_FILE = 0o100644


def tags(machine: str) -> list[str]:
    """The platforms of the wheel, for `x86_64` or `aarch64`."""
    return [f"{platform}_{machine}" for platform in PLATFORMS]


def contents(wheel: Path, executable: Path) -> dict[str, tuple[bytes, int]]:
    """Each file of the new wheel, with its mode, but RECORD."""
    stem = wheel.name.removesuffix("-py3-none-any.whl")
    info, scripts = f"{stem}.dist-info", f"{stem}.data/scripts"
    with zipfile.ZipFile(wheel) as archive:
        files = {item.filename: (archive.read(item), item.external_attr >> 16) for item in archive.infolist()}
    del files[f"{info}/RECORD"]
    files[f"{scripts}/{PYTHONS}"] = files.pop(f"{scripts}/{OURS}")
    files[f"{scripts}/{OURS}"] = executable.read_bytes(), _EXECUTABLE
    licences, sbom = f"{executable.name}.licenses.txt", f"{executable.name}.spdx.json"
    files[f"{info}/licenses/{licences}"] = executable.with_name(licences).read_bytes(), _FILE
    files[f"{info}/sboms/{sbom}"] = executable.with_name(sbom).read_bytes(), _FILE
    own = b"License-File: LICENSE\n"
    _replace(files, f"{info}/METADATA", own, own + f"License-File: {licences}\n".encode())
    machine = executable.name.rpartition("linux-")[2]
    lines = "".join(f"Tag: py3-none-{tag}\n" for tag in tags(machine))
    _replace(files, f"{info}/WHEEL", b"Tag: py3-none-any\n", lines.encode())
    return files


def _replace(files: dict[str, tuple[bytes, int]], name: str, old: bytes, new: bytes) -> None:
    data, mode = files[name]
    if data.count(old) != 1:
        sys.exit(f"wheel.py: {name} has no line {old!r}")
    files[name] = data.replace(old, new), mode


def record(files: dict[str, tuple[bytes, int]], name: str) -> bytes:
    """RECORD, whose own name is `name`: the sum and the size of each file."""
    lines = []
    for path, (data, _) in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{name},,\n"]).encode()


def main(wheel: Path, executable: Path) -> None:
    """Write the wheel, and print its path."""
    files = contents(wheel, executable)
    info = next(path.partition("/")[0] for path in files if path.endswith(".dist-info/WHEEL"))
    platforms = ".".join(tags(executable.name.rpartition("linux-")[2]))
    made = wheel.with_name(f"{wheel.name.removesuffix('any.whl')}{platforms}.whl")
    whole = {**dict(sorted(files.items())), f"{info}/RECORD": (record(files, f"{info}/RECORD"), _FILE)}
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, (data, mode) in whole.items():
            item = zipfile.ZipInfo(path, (2020, 2, 2, 0, 0, 0))
            item.compress_type, item.create_system, item.external_attr = zipfile.ZIP_DEFLATED, 3, mode << 16
            archive.writestr(item, data, compresslevel=9)
    print(made)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
