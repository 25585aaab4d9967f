"""Faults injected into training for real: each ends in a clear error or in recovery, and nothing is lost.

PAPERWALK_FAULTS=full runs the full counts; the default is a fraction of them.
"""

import errno
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paperwalk.training import TrainConfig, TrainingError, train
from training import jobs
from training.conftest import one_thread  # noqa: F401
from training.tiny import Tiny, assert_same, micro_batches, noisy_loss, tensors_of
from training.workers import Workers, process

FULL = os.environ.get("PAPERWALK_FAULTS") == "full"


def run(path, batches=micro_batches, seed=5, **more):
    """20 steps, a checkpoint every third -> the trained weights; depends on every random generator."""
    model = Tiny(dropout=0.3)
    config = TrainConfig(steps=20, lr=0.02, warmup=3, seed=seed, checkpoint_every=3)
    train(model, batches, noisy_loss, config, path, **{"progress": False} | more)
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run: `run` (step 20) and `run.previous` (step 18)."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "run")
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """The path of a copy of the finished run's checkpoint, the previous one beside it."""
    for file in whole.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / "run"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def two():
    workers = Workers(2)
    yield workers
    workers.close()


def fill(disk):
    """Leave less room on the disk than a checkpoint needs -> the file that takes it."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(file.tell() - 8192)
    return ballast


def at(wanted, event):
    """The data of `run`; `event()` happens before step `wanted`."""

    def batches(step):
        if step == wanted:
            event()
        return micro_batches(step)

    return batches


def assert_equal_checkpoints(a, b):
    (tensors, notes), (others, their_notes) = tensors_of(a), tensors_of(b)
    assert_same(tensors, others)
    assert notes == their_notes, "the log and the states of the generators"


def assert_recovers(path, whole, says, first=18):
    """`run` says why it goes back to the checkpoint before, goes on from its step, and ends as if nothing had been."""
    steps = []
    with pytest.warns(UserWarning, match=f"{path.name}: {says}.*going on from the checkpoint before it, step {first}$"):
        run(path, lambda step: steps.append(step) or micro_batches(step))
    assert steps == list(range(first, 20))
    assert_equal_checkpoints(path, whole / "run")


# --- kill -9 --------------------------------------------------------------------------------------


def undisturbed(run, path):
    path.parent.mkdir()
    run(path).join()
    return path


def killed_at_random(run, folder):
    """The path of a run that was killed at a random moment: some milliseconds after a step that is drawn as well."""
    for attempt in range(10):
        path = folder / str(attempt) / "run"
        path.parent.mkdir(parents=True)
        taken, step = path.with_name("steps"), random.randrange(run.STEPS)
        running = run(path)
        while not taken.exists() or taken.stat().st_size <= step:
            time.sleep(0.0005)
        time.sleep(random.random() * 0.01)
        if running.kill_and_see():
            return path
    pytest.fail("it ended each time before it was killed")


class OneProcess:
    """A training, a checkpoint every third step, in one process."""

    STEPS = 120

    def __init__(self, path):
        self.child = process(jobs.run_often_saved, path, self.STEPS)

    def join(self):
        self.child.join()
        assert self.child.exitcode == 0

    def kill_and_see(self):
        self.child.kill()
        self.child.join()
        return self.child.exitcode == -signal.SIGKILL


class TwoWorkers:
    """A training, a checkpoint every third step, by two workers."""

    STEPS = 60

    def __init__(self, path):
        self.workers = Workers(2)
        self.workers.start(jobs.run_often_saved, path, self.STEPS)

    def join(self):
        assert self.workers.results() == [None, None]
        self.workers.close()

    def kill_and_see(self):
        ended = any(pipe.poll() for pipe in self.workers.pipes)
        self.workers.close()
        return not ended


@pytest.mark.fault("kill -9 of the training process at a random moment", "goes on from its checkpoint to the same bits")
@pytest.mark.slow
def test_kill_at_random_moments(tmp_path):
    kills, whole = 20 if FULL else 5, undisturbed(OneProcess, tmp_path / "whole" / "run")
    reached = []
    for i in range(kills):
        path = killed_at_random(OneProcess, tmp_path / str(i))
        left = [file for file in (path, path.with_name("run.previous")) if file.exists()]
        reached.append(int(tensors_of(left[0])[1]["step"]) if left else 0)
        OneProcess(path).join()
        assert_equal_checkpoints(path, whole)
        assert sorted(os.listdir(path.parent)) == ["run", "run.previous", "steps"]
    print(f"{len(reached)} of {kills} killed runs end in the same bits; their checkpoints: steps {sorted(reached)}")
    assert len(set(reached)) > 1


@pytest.mark.fault("kill -9 of all workers of a distributed training", "goes on from its checkpoint to the same bits")
@pytest.mark.slow
def test_kill_of_all_workers_at_random_moments(tmp_path):
    kills, whole = 6 if FULL else 2, undisturbed(TwoWorkers, tmp_path / "whole" / "run")
    for i in range(kills):
        path = killed_at_random(TwoWorkers, tmp_path / str(i))
        TwoWorkers(path).join()
        assert sorted(os.listdir(path)) == sorted(os.listdir(whole))
        for file in whole.glob("*.safetensors"):
            assert_same(load_file(path / file.name), load_file(file))
    print(f"{i + 1} of {kills} runs of two workers, killed, end in the same bits")


# --- damaged checkpoints --------------------------------------------------------------------------


@pytest.mark.fault("truncated checkpoint", "found by its checksum; training goes on from the one before, and says so")
@pytest.mark.parametrize("keep", [0, 4, 200, 0.5, -1], ids=["empty", "length", "header", "half", "all but a byte"])
def test_truncated(copy, whole, keep):
    content = copy.read_bytes()
    copy.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert_recovers(copy, whole, "damaged")


@pytest.mark.fault("bit-flipped checkpoint", "found by its checksum; training goes on from the one before, and says so")
def test_flipped_bits(copy, whole, tmp_path):
    content, names = copy.read_bytes(), ("run", "run.previous")
    header = 8 + int.from_bytes(content[:8], "little")
    checksum = content.index(b'"sha256":"') + 12
    anywhere = random.Random(0).sample(range(header), 6) + random.Random(1).sample(range(header, len(content)), 6)
    for place in [0, 7, checksum, header - 1, header, len(content) - 1, *anywhere]:
        for name in names:
            shutil.copy(whole / name, tmp_path)
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        copy.write_bytes(flipped)
        assert_recovers(copy, whole, "damaged")


@pytest.mark.fault("newest checkpoint deleted", "training goes on from the one before, and says so")
def test_deleted(copy, whole):
    copy.unlink()
    assert_recovers(copy, whole, "missing")


@pytest.mark.fault("newest checkpoint and the one before damaged", "clear error; neither file is touched")
def test_none_is_whole(copy):
    for file in (copy, copy.with_name("run.previous")):
        file.write_bytes(file.read_bytes()[:-1])
    held = {file: file.read_bytes() for file in copy.parent.iterdir()}
    with pytest.raises(TrainingError, match=r"not a readable checkpoint \(.*\), nor is the one before it; delete"):
        run(copy)
    assert {file: file.read_bytes() for file in copy.parent.iterdir()} == held


@pytest.mark.fault(
    "checkpoint swapped for another run's", "clear error that says in what they differ; no file is touched"
)
def test_swapped(copy, tmp_path):
    other = tmp_path / "other"
    run(other, seed=6)
    shutil.copy(other, copy)
    held = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(TrainingError, match=r"the checkpoint of another run .seed: 6 there, 5 here"):
        run(copy)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == held


def swap_shards(folder):
    one, other = sorted(folder.glob("*.safetensors"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.fault(
    "sharded checkpoint with a shard truncated, flipped, swapped, missing or too many, or its notes damaged",
    "found by its checksums; all workers go on from the one before, and say so",
)
def test_damaged_shards(two, tmp_path):
    damage = {
        "truncated": lambda folder: truncate(sorted(folder.glob("*.safetensors"))[1]),
        "flipped": lambda folder: flip(sorted(folder.glob("*.safetensors"))[0]),
        "swapped": swap_shards,
        "missing": lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(),
        "too many": lambda folder: shutil.copy(next(folder.glob("*.safetensors")), folder / "more.safetensors"),
        "notes truncated": lambda folder: truncate(folder / "run.json"),
        "notes flipped": lambda folder: flip(folder / "run.json"),
        "notes missing": lambda folder: (folder / "run.json").unlink(),
        "empty": lambda folder: [file.unlink() for file in folder.iterdir()],
    }
    arguments = True, torch.float32, jobs.four, True
    whole = two(jobs.run, tmp_path / "whole" / "run", *arguments)
    for name, inflict in damage.items():
        path = tmp_path / name / "run"
        shutil.copytree(tmp_path / "whole", path.parent)
        inflict(path)
        results = two(jobs.run_and_warn, path, *arguments)
        for ((weights, log, first), _), (expected, expected_log, _) in zip(results, whole):
            assert first == [8] and log == expected_log
            assert all((weights[key] == array).all() for key, array in expected.items())
        assert "going on from the checkpoint before it, step 8" in results[0][1] and results[1][1] == ""


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.fault("disk full while writing a checkpoint", "clear error; the checkpoints before it stay whole")
def test_disk_full(small_disk, whole):
    path, filled = small_disk / "run", []
    with pytest.raises(TrainingError, match=r"run: no space left for a checkpoint, which needs \d+\.\d MB") as error:
        run(path, at(7, lambda: filled.append(fill(small_disk))))
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(small_disk)) == ["ballast", "run", "run.previous"]
    assert [tensors_of(small_disk / name)[1]["step"] for name in ("run", "run.previous")] == ["6", "3"]
    filled[0].unlink()
    steps = []
    run(path, lambda step: steps.append(step) or micro_batches(step))
    assert steps[0] == 6
    assert_equal_checkpoints(path, whole / "run")


@pytest.mark.fault(
    "disk full while workers write a sharded checkpoint", "clear error on all; those before it stay whole"
)
def test_disk_full_for_workers(two, small_disk, tmp_path):
    arguments = True, torch.float32, jobs.four, True
    whole = two(jobs.run, tmp_path / "run", *arguments)
    assert two(jobs.stopped, small_disk / "run", *arguments, 11) == [True, True]
    ballast = fill(small_disk)
    for error in two(jobs.run, small_disk / "run", *arguments):
        assert isinstance(error, TrainingError) and "run: no space left for a checkpoint" in str(error)
    assert sorted(os.listdir(small_disk)) == ["ballast", "run", "run.previous"]
    ballast.unlink()
    for (weights, log, first), (expected, expected_log, _) in zip(two(jobs.run, small_disk / "run", *arguments), whole):
        assert first == [8] and log == expected_log
        assert all((weights[key] == array).all() for key, array in expected.items())


def remount(disk, how):
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


@pytest.mark.fault("disk turned read-only during training", "clear error; the checkpoints before it stay whole")
def test_read_only_disk(small_disk, whole):
    path = small_disk / "run"
    with pytest.raises(TrainingError, match=r"run: the checkpoint cannot be written .*Read-only file system"):
        run(path, at(7, lambda: remount(small_disk, "ro")))
    steps = []
    with pytest.raises(TrainingError, match=r"run: no checkpoint can be written there .*Read-only file system"):
        run(path, lambda step: steps.append(step) or micro_batches(step))
    assert not steps, "said before the first step"
    remount(small_disk, "rw")
    run(path, lambda step: steps.append(step) or micro_batches(step))
    assert steps[0] == 6
    assert_equal_checkpoints(path, whole / "run")


# --- figures, memory, clocks, code ----------------------------------------------------------------


@pytest.mark.fault("NaN loss", "clear error that names the step; the checkpoints before it stay whole")
def test_nan(tmp_path, whole):
    path = tmp_path / "run"
    nan = lambda step: [(x, y, float("nan") if step == 10 else 1.0) for x, y in micro_batches(step)]
    scaled = lambda model, batch: [v * batch[2] if i == 0 else v for i, v in enumerate(noisy_loss(model, batch[:2]))]
    config = TrainConfig(steps=20, lr=0.02, warmup=3, seed=5, checkpoint_every=3)
    with pytest.raises(TrainingError, match="step 10: the loss is nan"):
        train(Tiny(dropout=0.3), nan, scaled, config, path, progress=False)
    assert tensors_of(path)[1]["step"] == "9"
    run(path)  # the data are mended
    assert_equal_checkpoints(path, whole / "run")


@pytest.mark.fault(
    "out of memory", "clear error that names what to lower; goes on from the checkpoint with more memory"
)
def test_out_of_memory(tmp_path):
    process(jobs.run_with_a_large_step, tmp_path / "undisturbed").join()
    process(jobs.run_in_little_memory, tmp_path / "run", 100_000_000).join()
    said = (tmp_path / "said").read_text()
    assert said.startswith("step 7: out of memory; lower the rows or the length of a micro-batch, here (1000000,)")
    assert "the width of the model, here 120 weights" in said and "\n" not in said
    assert tensors_of(tmp_path / "run")[1]["step"] == "6"
    process(jobs.run_with_a_large_step, tmp_path / "run").join()
    assert_equal_checkpoints(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.fault("clock going backwards", "no effect: neither training nor the choice of a checkpoint asks the time")
def test_clock_going_backwards(tmp_path, whole, monkeypatch):
    hours = itertools.count(0, -3600)
    backwards = lambda: 1e9 + next(hours)
    for clock in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(clock, backwards)
    path = tmp_path / "run"

    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        run(path, at(13, stop), progress=True)
    os.utime(path, (1e9, 1e9))  # the newest seems older than the one before
    os.utime(path.with_name("run.previous"), (2e9, 2e9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(path, progress=True)
    assert next(hours) < -10 * 3600, "the clock was read, and went back"
    assert_equal_checkpoints(path, whole / "run")


class Malice:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.fault("malicious checkpoint (a pickle with code in it)", "refused; the code does not run")
@pytest.mark.parametrize("how", ["pickle", "torch.save", "folder with torch.distributed.checkpoint's pickle"])
def test_pickle_is_refused(tmp_path, how):
    mark, path = tmp_path / "run by the pickle", tmp_path / "run"
    pickle.loads(pickle.dumps(Malice(mark)))
    assert mark.exists(), "whoever unpickles it runs the code"
    mark.unlink()
    if how == "pickle":
        path.write_bytes(pickle.dumps(Malice(mark)))
    elif how == "torch.save":
        torch.save(Malice(mark), path)
    else:
        path.mkdir()
        (path / ".metadata").write_bytes(pickle.dumps(Malice(mark)))
        (path / "__0_0.distcp").write_bytes(pickle.dumps(Malice(mark)))
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        run(path)
    assert not mark.exists() and path.exists()
