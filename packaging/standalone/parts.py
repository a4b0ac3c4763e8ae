"""Writes the files that describe the executable's parts: licences, sums, and an SBOM in SPDX's JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

from sources import HERE, sources, wheels

PROJECT = HERE.parents[1]
_TEXTS = {
    "musl": "COPYRIGHT",
    "openssl": "LICENSE.txt",
    "postgresql": "COPYRIGHT",
    "python3.13": "LICENSE",
    "zlib": "LICENSE",
}
# gcc adds libgcc to every program, under an exception of its licence. It isn't among our sources.
_LIBGCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
_LIBGCC_TEXT = (
    "Functions of GCC's runtime library libgcc that a compiled program may need are in it by the GCC\n"
    "Runtime Library Exception, version 3.1, which permits to convey it under terms of one's choice.\n"
)


def version() -> str:
    """The version of singleton-run."""
    found = re.search(
        r'__version__ = "(.+)"', (PROJECT / "singleton_run/__init__.py").read_text(encoding="utf-8")
    )
    return found[1] if found is not None else ""


def keep_texts(unpacked: Path, folder: Path) -> None:
    """Keep the sources' licences in the new `folder`, each in a file that is named after its source."""
    folder.mkdir()
    for source in sources():
        shutil.copy(unpacked / source.name / _TEXTS[source.name], folder / source.name)


def write_texts(texts: Path, installed: Path, tree: Path) -> None:
    """Write all licences as the module `_licences`, and as TREE/licences.txt."""
    parts = [("singleton-run", version(), "Apache-2.0", (PROJECT / "LICENSE").read_text(encoding="utf-8"))]
    parts += [
        (part.name, part.version, part.licence, (texts / part.name).read_text(encoding="utf-8"))
        for part in sources()
    ]
    parts += [(part.name, part.version, part.licence, _text_of(installed, part.name)) for part in wheels()]
    parts += [("libgcc", "", _LIBGCC, _LIBGCC_TEXT)]
    told: dict[str, str] = {}
    sections = []
    for name, number, licence, text in parts:
        title = f"{name} {number}".rstrip()
        # If several parts have the very same text, with the same copyright lines, it is printed once.
        shown = f"The same text as that of {told[text]}." if text in told else text.strip()
        told.setdefault(text, title)
        sections.append(f"{'=' * 78}\n{title}: {licence}\n{'=' * 78}\n\n{shown}\n")
    whole = "\n".join(sections)
    (tree / "shims/_licences.py").write_text(
        f'"""The licences of all that is in this file."""\n\nTEXT = {whole!r}\n', encoding="utf-8"
    )
    (tree / "licences.txt").write_text(whole, encoding="utf-8")


def _text_of(installed: Path, name: str) -> str:
    (folder,) = installed.glob(f"{name.replace('-', '[-_]')}-*.dist-info")
    files = sorted(
        path
        for path in folder.rglob("*")
        if re.match(r"(?i)licen[sc]e|copying|notice", path.name) and path.is_file()
    )
    return "\n".join(file.read_text(encoding="utf-8") for file in files) or f"See {name}'s sources.\n"


def write_beside(made: Path, texts: Path) -> None:
    """Write the executable's licences, SBOM and sums, named after it."""
    shutil.copy(texts, f"{made}.licenses.txt")
    sbom = json.dumps(_sbom(made), indent=1, sort_keys=True)
    Path(f"{made}.spdx.json").write_text(sbom + "\n", encoding="utf-8")
    files = [made, Path(f"{made}.licenses.txt"), Path(f"{made}.spdx.json")]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    Path(f"{made}.sha256").write_text("".join(lines), encoding="ascii")


def _sbom(made: Path) -> dict[str, object]:
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    parts = [
        _part(part.name, part.version, part.licence, f"pkg:generic/{part.name}@{part.version}", part.sha256)
        for part in sources()
    ]
    parts += [
        _part(part.name, part.version, part.licence, f"pkg:pypi/{part.name}@{part.version}")
        for part in wheels()
    ]
    parts += [_part("libgcc", "NOASSERTION", _LIBGCC, "")]
    own = _part("singleton-run", version(), "Apache-2.0", f"pkg:pypi/singleton-run@{version()}", sha256)
    own["packageFileName"] = made.name
    created = time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "1780272000")))
    )
    relations: list[tuple[object, str, object]] = [("SPDXRef-DOCUMENT", "DESCRIBES", own["SPDXID"])]
    relations += [(own["SPDXID"], "CONTAINS", part["SPDXID"]) for part in parts]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": made.name,
        "documentNamespace": f"urn:sha256:{sha256}",
        "creationInfo": {"created": created, "creators": ["Tool: singleton-run-packaging-standalone"]},
        "packages": [own, *parts],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }


def _part(name: str, number: str, licence: str, purl: str, sha256: str = "") -> dict[str, object]:
    part: dict[str, object] = {
        "SPDXID": f"SPDXRef-{name}",
        "name": name,
        "versionInfo": number,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": licence,
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
    }
    if purl:
        part["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        ]
    if sha256:
        part["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    return part
