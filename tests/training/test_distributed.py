"""The one loop on several processes: what it must equal, what it writes, and how it fails."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from paperwalk.training import TrainingError, distributed
from paperwalk.training.distributed import DistributedError
from training import jobs
from training.workers import Workers

pytestmark = pytest.mark.full

# Fixed before the first run. Workers add the same numbers in another order: after 12 steps of AdamW a float64 run may
# differ by 1e-10 and a float32 run by 1e-4 from that of one process, in each weight and in each figure of the log.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


@pytest.fixture(scope="module")
def one():
    workers = Workers(1)
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def two():
    workers = Workers(2)
    yield workers
    workers.close()


def assert_equal(a, b):
    weights, log, _ = a
    for name, array in b[0].items():
        assert np.array_equal(weights[name], array), name
    assert log == b[1]


def assert_close(a, b, tolerance):
    (weights, log, _), (others, their_log, _) = a, b
    for name, array in others.items():
        np.testing.assert_allclose(weights[name], array, rtol=0, atol=tolerance, err_msg=name)
    assert [row.keys() for row in log] == [row.keys() for row in their_log]
    for row, theirs in zip(log, their_log):
        assert row == pytest.approx(theirs, rel=0, abs=tolerance)


modes = pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])


# --- equality -------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_worker_is_the_plain_loop_bit_for_bit(one, sharded, dtype):
    """Dropout and a noisy loss: the random numbers are the same as well."""
    plain = jobs.run(dtype=dtype, noisy=True)
    (joined,) = one(jobs.run, None, sharded, dtype, jobs.four, True)
    assert_equal(joined, plain)


@modes
@pytest.mark.parametrize("batches", [jobs.four, jobs.three, jobs.single])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_two_workers_equal_one(two, sharded, dtype, batches):
    plain = jobs.run(dtype=dtype, batches=batches)
    joined = two(jobs.run, None, sharded, dtype, batches)
    assert max(row["grad_norm"] for row in plain[1]) > 0.7, "clipping is part of what must be equal"
    assert_close(joined[0], plain, TOLERANCE[dtype])
    assert_equal(*joined)


@modes
@pytest.mark.parametrize("kind", ["decoder", "fam", "seq2seq"])
def test_the_models_of_the_book(two, kind, sharded):
    plain, joined = jobs.run_model(kind, False), two(jobs.run_model, kind, sharded)
    assert_close(joined[0], plain, TOLERANCE[torch.float64])
    assert_equal(*joined)


def test_parameters_that_some_micro_batches_do_not_use(two):
    joined = two(jobs.run_branch)
    assert_close(joined[0], jobs.run_branch(), TOLERANCE[torch.float64])


def test_workers_draw_other_random_numbers(two):
    (first, *rest), (second, *others) = two(jobs.draw, 5)
    assert first == 5 and first != second and 0 <= second < 2**32
    assert (rest, others) == ([0, 2], [1, 2])
    assert jobs.draw(5) == [5, 0, 1]


# --- checkpoints ----------------------------------------------------------------------------------


@modes
def test_resume_with_as_many_workers_is_exact(two, tmp_path, sharded):
    whole = two(jobs.run, tmp_path / "whole", sharded, torch.float32, jobs.four, True)
    assert two(jobs.stopped, tmp_path / "run", sharded, torch.float32, jobs.four, True, 7) == [True, True]
    again = two(jobs.run, tmp_path / "run", sharded, torch.float32, jobs.four, True, None, 50)
    for a, b in zip(again, whole):
        assert_equal(a, b)
        assert a[2] == [4]
    files = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert files[0] == "run.json" and len(files) == 3, "the notes and a file of each worker"
    assert sorted(os.listdir(tmp_path)) == ["run", "run.previous", "whole", "whole.previous"]


@modes
def test_going_on_with_other_numbers_of_workers(one, two, tmp_path, sharded):
    """two -> one -> two -> none, a part of the run each; the undisturbed run had one process."""
    path, plain = tmp_path / "run", jobs.run()
    assert two(jobs.stopped, path, sharded, torch.float64, jobs.four, False, 5) == [True, True]
    assert one(jobs.stopped, path, sharded, torch.float64, jobs.four, False, 9, 50) == [True]
    last = two(jobs.run, path, sharded, torch.float64, jobs.four, False)
    assert_close(last[0], plain, TOLERANCE[torch.float64])
    assert last[0][2] == last[1][2] == [8]
    alone = jobs.run(path, init=50)  # it is finished: its weights and log without a process group
    assert alone[2] == []
    assert_equal(alone, last[0])


@modes
def test_a_run_begun_on_one_process_goes_on_with_two_and_back(two, tmp_path, sharded):
    path, plain = tmp_path / "run", jobs.run()
    assert jobs.stopped(path, False, torch.float64, jobs.four, False, 5)
    assert path.is_file()
    assert two(jobs.stopped, path, sharded, torch.float64, jobs.four, False, 9) == [True, True]
    assert path.is_dir() and path.with_name("run.previous").is_file()
    back = jobs.run(path, init=50)
    assert back[2] == [8] and path.is_file()
    assert_close(back, plain, TOLERANCE[torch.float64])


def test_the_checkpoint_of_another_run_is_refused_by_all(two, tmp_path):
    two(jobs.run, tmp_path / "run")
    held = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    for error in two(jobs.run, tmp_path / "run", False, torch.float32):
        assert isinstance(error, TrainingError) and "another run" in str(error) and "float32" in str(error)
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == held


# --- failure --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_on_one_worker_ends_all(two):
    for error in two(jobs.run_into_nan):
        assert isinstance(error, TrainingError) and str(error).startswith("step 2: the loss is nan")


def test_a_loss_without_parameters_is_refused(two):
    for error in two(jobs.run_constant_loss):
        assert isinstance(error, TrainingError) and "step 0: a loss depends on no parameter" in str(error)


def test_models_that_differ_cannot_be_sharded(two):
    for error in two(jobs.shard_unequal):
        assert isinstance(error, ValueError) and str(error).startswith("model: has other weights")


# --- Ray ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [{"workers": 0}, {"workers": 1.5}, {"retries": -1}, {"gpus_per_worker": -1}, {"cpus_per_worker": "2"}]
)
def test_bad_numbers_are_named(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"^{name} = {value!r}: must be a"):
        distributed.launch(jobs.run, **({"workers": 2} | bad))


def test_launch_without_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(DistributedError, match=r"workers = 2: .*requirements-cluster.lock"):
        distributed.launch(jobs.run, 2)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs Ray (requirements-cluster.lock)")
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {"env_vars": {"PYTHONPATH": path}}  # where the workers find training.jobs
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield ray
    ray.shutdown()


@pytest.mark.fault("kill -9 of a Ray Train worker", "all workers are started again and go on from the checkpoint")
@pytest.mark.slow
def test_a_killed_worker_is_replaced(ray, two, tmp_path):
    distributed.launch(lambda: jobs.run_and_be_killed(tmp_path), 2, storage=tmp_path / "ray")
    assert (tmp_path / "killed").exists()
    taken = [len((tmp_path / f"rank1-step{step}").read_text().split()) for step in range(12)]
    assert taken == [1] * 4 + [2] * 3 + [1] * 5, "the second start goes on from step 4"
    whole = two(jobs.run, tmp_path / "whole", True, torch.float32, jobs.four, True)
    assert_equal(jobs.run(tmp_path / "run", False, torch.float32, jobs.four, True, init=50), whole[0])
    with pytest.raises(DistributedError, match=r"workers = 1: .* than 0 times: .*step 2: the loss is nan"):
        distributed.launch(jobs.run_into_nan, 1, retries=0, storage=tmp_path / "ray")
