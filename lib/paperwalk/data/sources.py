"""What a run has read: noted as it is read, so that its results are never taken for those of other data.

An entry is "KIND NAME" with what its content is known by: a package of packages.txt by its pinned line, an installed
package that holds data by its version, a file by the sha256 of its content, a server's model by the address that it is
asked at, a data set of the hub by its fingerprint. Entries go to the file that PAPERWALK_SOURCES names, a line each,
from whatever process reads; where the variable is not set, nothing is noted.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

VARIABLE = "PAPERWALK_SOURCES"
OPENAI = "https://api.openai.com/v1"  # where the client asks when no address is set


def package(name: str) -> None:
    """Notes a package of packages.txt."""
    _note("package", name)


def installed(name: str) -> None:
    """Notes an installed package whose content is data."""
    _note("installed", name)


def file(path: Path | str) -> Path:
    """Notes a file and returns its path."""
    path, root = Path(path), Path(os.environ.get("PAPERWALK_ROOT", ".")).resolve()
    whole = path.resolve()
    _note("file", whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole))
    return path


def server(model: str) -> None:
    """Notes a model behind the environment's address (OPENAI_BASE_URL)."""
    _note("server", model)


def hub(name: str, fingerprint: str) -> None:
    """Notes a data set of the hub; whether it has changed there since, nobody here can tell."""
    _note("hub", name, fingerprint)


def noted() -> dict[str, str]:
    """The entries so far. One that was noted with two contents is known by both, and so has changed."""
    named = os.environ.get(VARIABLE)
    return read(Path(named)) if named else {}


def read(noted_in: Path) -> dict[str, str]:
    """The entries of a file of notes; empty lines and one that a kill cut off are left out."""
    entries: dict[str, str] = {}
    lines = noted_in.read_text(encoding="utf-8").splitlines() if noted_in.exists() else []
    for line in lines:
        try:
            name, content = json.loads(line)
        except ValueError:
            continue
        if entries.setdefault(name, content) != content:
            entries[name] += f" and {content}"
    return entries


def again(entries: Mapping[str, str]) -> None:
    """Notes what an earlier part of the run has read, as it was then."""
    for entry, content in entries.items():
        kind, _, name = entry.partition(" ")
        _note(kind, name, content)


def changed(entries: Mapping[str, str], root: Path | None = None) -> list[str]:
    """Those of the entries whose content is another now, or cannot be had.

    root: where the names of files begin, by default what PAPERWALK_ROOT names, or the current folder.
    """
    out = []
    for entry, content in entries.items():
        kind, _, name = entry.partition(" ")
        if kind != "hub" and _content(kind, name, root) != content:
            out.append(entry)
    return out


def _note(kind, name, content=None):
    if target := os.environ.get(VARIABLE):
        line = json.dumps([f"{kind} {name}", _content(kind, name) if content is None else content])
        with open(target, "ab", buffering=0) as notes:
            notes.write(f"\n{line}\n".encode())  # a new line first, should a kill have cut off the one before


def _content(kind, name, root=None):
    """What the content is known by, now; "" where it cannot be had."""
    if kind == "package":
        lines = Path(__file__).with_name("packages.txt").read_text(encoding="utf-8").splitlines()
        return next((line for line in lines if line.startswith(f"{name}==")), "")
    if kind == "installed":
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return ""
    if kind == "server":
        return re.sub(r"//[^/@]*@", "//", os.environ.get("OPENAI_BASE_URL") or OPENAI)  # without a password
    path = Path(root or os.environ.get("PAPERWALK_ROOT", "."), name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
