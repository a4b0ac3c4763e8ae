"""The sources from Debian and the wheels for the executable: each by name, version and SHA-256."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LIST = HERE / "sources.txt"
LOCK = HERE.parents[1] / "constraints.txt"
# All are pure Python, in the versions that the tests pass with. Of kubernetes we use only the login.
WHEELS = {
    "click": "BSD-3-Clause",
    "croniter": "MIT",
    "kubernetes": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "pyyaml": "MIT",
    "rich": "MIT",
    "tzdata": "Apache-2.0",
}
_APT_HELPER = "/usr/lib/apt/apt-helper"


class Unbuildable(Exception):
    """The executable can't be built here; the text says why, and what to do."""


class Source(NamedTuple):
    """A source package: `file` is below a mirror's pool/."""

    name: str
    version: str
    licence: str
    sha256: str
    file: str


class Wheel(NamedTuple):
    """A Python package, with the hashes of the lock."""

    name: str
    version: str
    licence: str
    hashes: tuple[str, ...]


def sources() -> list[Source]:
    """The source packages that sources.txt lists."""
    lines = LIST.read_text(encoding="ascii").splitlines()
    return [Source(*line.split()) for line in lines if line and not line.startswith("#")]


def wheels() -> list[Wheel]:
    """The packages of WHEELS, with version and hashes from the lock."""
    blocks = re.findall(
        r"^(\S+)==(\S+) \\\n((?: +--hash=.*\n)+)", LOCK.read_text(encoding="ascii"), re.MULTILINE
    )
    found = {
        name: Wheel(name, version, WHEELS[name], tuple(re.findall(r"sha256:\w+", rest)))
        for name, version, rest in blocks
        if name in WHEELS
    }
    return [found[name] for name in sorted(WHEELS)]


def unpack(source: Source, kept: Path, folder: Path) -> None:
    """Unpack a source into `folder`. Fetches it into `kept` if it isn't there. Raises Unbuildable."""
    file = kept / Path(source.file).name
    if not _is_right(file, source.sha256):
        _fetch(source, file)
    part = folder.with_name(f"{folder.name}.part")
    with tarfile.open(file) as archive:
        # The first folder in the archive is named after the version.
        for member in archive:
            member.name = member.name.partition("/")[2]
            if member.name:
                archive.extract(member, part, filter="tar")
    part.rename(folder)


def _is_right(file: Path, sha256: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _fetch(source: Source, file: Path) -> None:
    """Fetch the source from the first of this machine's mirrors that has it. Raises Unbuildable."""
    part = file.with_name(f"{file.name}.part")
    for mirror in _mirrors():
        place = f"{mirror}/pool/{source.file}"
        command = [_APT_HELPER, "download-file", place, str(part), f"SHA256:{source.sha256}"]
        done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode == 0 and _is_right(part, source.sha256):
            part.rename(file)
            return
        part.unlink(missing_ok=True)
    raise Unbuildable(
        f"no mirror of Debian that apt knows here has pool/{source.file}: put it, with the SHA-256 "
        f"{source.sha256}, into {file.parent}, or name a newer {source.name} in {LIST}"
    )


def _mirrors() -> list[str]:
    """The mirrors of Debian in this machine's apt sources, for any release."""
    try:
        done = subprocess.run(
            ["apt-get", "--print-uris", "update"], check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        return []
    found = re.findall(r"^'(\S+?)/dists/", done.stdout, re.MULTILINE)
    return sorted(
        {place for place in found if "debian" in place}, key=lambda place: ("security" in place, place)
    )


def install_wheels(folder: Path) -> None:
    """Install the wheels into `folder`, with the same files on every machine. Raises Unbuildable."""
    lines = [
        f"{wheel.name}=={wheel.version} {' '.join(f'--hash={text}' for text in wheel.hashes)}"
        for wheel in wheels()
    ]
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    needed = part / "needed.txt"
    needed.write_text("\n".join(lines) + "\n", encoding="ascii")
    # Take the same wheels on every Python. We use none of their compiled parts.
    words = "install --no-deps --no-compile --require-hashes --only-binary :all: --implementation cp "
    words += (
        "--python-version 3.13 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --upgrade"
    )
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words.split()]
    command += ["--target", str(part), "--requirement", str(needed)]
    if subprocess.run(command, check=False).returncode:
        raise Unbuildable("the Python packages can't be installed: see pip's words above")
    part.rename(folder)
