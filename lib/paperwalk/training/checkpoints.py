"""Checkpoints that outlive a kill, a full disk and a flipped bit.

A checkpoint is a safetensors file, or, written by the workers of a process group, a folder: `run.json` and a
safetensors file of each worker (torch.distributed.checkpoint), which any number of workers can read. Nothing is
pickled, so reading one never runs code. It is written aside, moved into place in one step, and carries a sha256 over
all of its bytes; the one before it stays as NAME.previous until the next.
"""

import errno
import hashlib
import json
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch

from paperwalk.training import distributed

NOTES = "run.json"
BLANK = b'"sha256":"' + b"0" * 64 + b'"'  # what the checksum's own place holds while it is computed


class TrainingError(RuntimeError):
    """Training cannot go on; one line says why, and what to do."""


class _Damaged(Exception):
    """Not a whole checkpoint."""


def save(path: Path, tensors: dict[str, torch.Tensor], notes: dict) -> None:
    """Write a checkpoint at `path`; the one that was there becomes NAME.previous. All workers call this together.

    notes: JSON-able; the entry `identity` is what `load` compares. Raises TrainingError when it cannot be written,
    for instance for want of space; what was there is then untouched and no half-written file stays.
    """
    temporary, first = _beside(path, "tmp"), distributed.rank() == 0
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        (_write_folder if dist.is_initialized() else _write_file)(temporary, tensors, notes)
        distributed.raise_everywhere(lambda: _put_into_place(temporary, path) if first else None)
    except OSError as error:
        raise TrainingError(_why_not_written(path, tensors, error)) from error
    finally:
        if first:
            with suppress(OSError):
                _remove(temporary)


def prepare(path: Path) -> None:
    """Make the folder of `path` and clear away what a kill left in it. All workers call this together.

    Raises TrainingError where nothing can be written: better now than after the first hours of training.
    """

    def clear():
        temporary = _beside(path, "tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(temporary)
            temporary.touch()
            temporary.unlink()
        except OSError as error:
            raise TrainingError(f"{path}: no checkpoint can be written there ({error})") from error

    distributed.raise_everywhere(lambda: clear() if distributed.rank() == 0 else None)


def load(path: Path, identity: dict) -> "Saved | None":
    """The newest whole checkpoint at `path`, open for reading (`Saved`), or None. All workers call this together.

    Where that at `path` is missing or damaged the previous one takes its place, with a warning. Raises TrainingError
    for one of another run (`identity` differs) and where none is whole.
    """
    first, problems = distributed.rank() == 0, []
    for candidate in (path, _beside(path, "previous")):
        if not distributed.broadcast_object(candidate.exists()):
            continue
        try:
            saved = distributed.raise_everywhere(lambda: Saved(candidate))
        except _Damaged as error:
            problems.append(str(error))
            continue
        if saved.notes["identity"] != identity:
            raise TrainingError(f"{candidate}: {_another_run(saved.notes['identity'], identity)}")
        if candidate != path:
            distributed.raise_everywhere(lambda: _put_back(candidate, path) if first else None)
            saved.path = path
            if first:
                problem = f"damaged ({problems[0]})" if problems else "missing"
                step = saved.notes["step"]
                warnings.warn(f"{path}: {problem}; going on from the checkpoint before it, step {step}", stacklevel=3)
        return saved
    if problems:
        what = f"not a readable checkpoint ({problems[0]})" + ", nor is the one before it" * (len(problems) > 1)
        raise TrainingError(f"{path}: {what}; delete it to start afresh, or choose another path")
    return None


class Saved:
    """A checkpoint whose checksum is right. notes: what `save` was given. names: of its tensors."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.notes, self.names = (_check_folder if path.is_dir() else _check_file)(path)
        except (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise _Damaged(" ".join(str(error).split()) or type(error).__name__) from error

    def read_into(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copy the saved tensors into those of the same names, sharded or not."""
        with torch.no_grad():
            (_read_folder if self.path.is_dir() else _read_file)(self.path, tensors)


# --- one file ---------------------------------------------------------------------------------------


def _write_file(path, tensors, notes):
    metadata = {name: json.dumps(note) for name, note in notes.items()} | {"sha256": "0" * 64}
    content = safetensors_torch.save(tensors, metadata)
    header = 8 + int.from_bytes(content[:8], "little")  # not save_file: killed, it leaves a file of a random name
    _write(path, _sealed(content[:header], hashlib.sha256(content)), memoryview(content)[header:])


def _check_file(path):
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata() or {}, list(file.keys())
    claimed = metadata.pop("sha256", "")
    with open(path, "rb") as file:
        start = file.read(8)
        header = start + file.read(int.from_bytes(start, "little"))
        digest = hashlib.sha256(_blanked(header, claimed))
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != claimed:
        raise ValueError("its checksum is wrong")
    return {name: json.loads(note) for name, note in metadata.items()}, names


def _read_file(path, tensors):
    with safe_open(path, framework="pt") as file:
        for name, tensor in tensors.items():
            whole = file.get_tensor(name)
            if hasattr(tensor, "placements"):  # sharded
                from torch.distributed.tensor import distribute_tensor

                whole = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.copy_(whole)


# --- a folder, of several workers -------------------------------------------------------------------
# torch.distributed.checkpoint takes a second to import: only who has such a folder waits for it


def _write_folder(folder, tensors, notes):
    import torch.distributed.checkpoint as dcp

    try:  # a safetensors file of each worker, synced; an error of one is raised on all
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except dcp.api.CheckpointException as error:
        raise next((cause for cause, _ in error.failures.values() if isinstance(cause, OSError)), error) from error
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    mine = files[distributed.rank() :: distributed.world_size()]
    digested = distributed.raise_everywhere(lambda: {name: _digest(folder / name) for name in mine})
    digests = {name: digest for part in distributed.all_gather_object(digested) for name, digest in part.items()}
    content = json.dumps({"sha256": "0" * 64, "files": digests} | notes, separators=(",", ":")).encode()

    def write_notes():
        _write(folder / NOTES, _sealed(content, hashlib.sha256(content)))
        _sync(folder)

    distributed.raise_everywhere(lambda: write_notes() if distributed.rank() == 0 else None)


def _check_folder(folder):
    import torch.distributed.checkpoint as dcp

    content = (folder / NOTES).read_bytes()
    notes = json.loads(content)
    claimed, files = notes.pop("sha256", ""), notes.pop("files", {})
    if hashlib.sha256(_blanked(content, claimed)).hexdigest() != claimed:
        raise ValueError(f"the checksum of {NOTES} is wrong")
    if {file.name for file in folder.glob("*.safetensors")} != files.keys():
        raise ValueError(f"its files are not those that {NOTES} lists")
    for name in sorted(files)[distributed.rank() :: distributed.world_size()]:
        if _digest(folder / name) != files[name]:
            raise ValueError(f"the checksum of {name} is wrong")
    return notes, list(dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def _read_folder(folder, tensors):
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is meant: one process reads all
        dcp.load(tensors, storage_reader=reader)


# --- bytes ------------------------------------------------------------------------------------------


def _sealed(content, digest):
    return content.replace(BLANK, BLANK.replace(b"0" * 64, digest.hexdigest().encode()), 1)


def _blanked(content, claimed):
    if not re.fullmatch(r"[0-9a-f]{64}", claimed):
        raise ValueError("it has no checksum")
    return content.replace(BLANK.replace(b"0" * 64, claimed.encode()), BLANK, 1)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path, *parts):
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- places and words -------------------------------------------------------------------------------


def _beside(path, what):
    return path.with_name(f"{path.name}.{what}")


def _remove(path):
    """Remove a checkpoint; of a folder only what `save` writes, so a stranger's folder is left (OSError)."""
    if path.is_dir():
        for file in (*path.glob("*.safetensors"), path / NOTES):
            file.unlink(missing_ok=True)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _put_into_place(temporary, path):
    if path.exists():
        _remove(_beside(path, "previous"))
        os.replace(path, _beside(path, "previous"))
    os.replace(temporary, path)
    _sync(path.parent)


def _put_back(previous, path):
    _remove(path)
    os.replace(previous, path)
    _sync(path.parent)


def _why_not_written(path, tensors, error):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
        what = f"no space left for a checkpoint, which needs {needed:.1f} MB; start again once there is room"
    else:
        what = f"the checkpoint cannot be written ({error})"
    return f"{path}: {what}; what was written before is kept"


def _another_run(theirs, ours):
    keys = [key for key in theirs | ours if theirs.get(key) != ours.get(key)]
    shown = "; ".join(f"{k}: {theirs.get(k, 'absent')} there, {ours.get(k, 'absent')} here" for k in keys[:5])
    more = f"; and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"the checkpoint of another run ({shown}{more}); delete it or choose another path"
