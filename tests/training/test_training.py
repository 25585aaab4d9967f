import json
import math
import multiprocessing
import os
import random
import signal
from contextlib import nullcontext, suppress
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paperwalk.training import TrainConfig, TrainingError, lr_at, train
from training import jobs
from training.tiny import Tiny, assert_same, loss_fn, micro_batches, noisy_loss, tensors_of
from training.workers import process

# --- schedule and settings ------------------------------------------------------------------------


def test_schedule():
    config = TrainConfig(steps=21, lr=2.0, warmup=4, min_lr_ratio=0.1)
    rates = [lr_at(step, config) for step in range(21)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[12] == pytest.approx(1.1)  # half way from step 4 to step 20: the mean of peak and minimum
    assert rates[8] == pytest.approx(0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2)
    assert rates[20] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert lr_at(0, TrainConfig(steps=1, lr=3.0)) == 3.0
    flat = TrainConfig(steps=5, lr=3.0, warmup=5, min_lr_ratio=1.0)
    assert lr_at(4, flat) == 3.0


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"steps": 2.0},
        {"steps": True},
        {"lr": 0.0},
        {"lr": math.inf},
        {"lr": math.nan},
        {"lr": "1e-3"},
        {"warmup": -1},
        {"warmup": 11},
        {"min_lr_ratio": 1.5},
        {"weight_decay": -0.1},
        {"betas": (0.9, 1.0)},
        {"betas": 0.9},
        {"betas": (0.9,)},
        {"clip": 0},
        {"clip": math.nan},
        {"seed": -1},
        {"seed": 2**32},
        {"bf16": 1},
        {"checkpoint_every": -1},
    ],
)
def test_bad_settings_are_named(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError) as error:
        TrainConfig(**({"steps": 10, "lr": 1e-3} | bad))
    assert str(error.value).startswith(f"{name} = {value!r}: must be ")
    assert "\n" not in str(error.value)


def test_bad_evaluate():
    for every, evaluate in ((3, None), (-1, lambda model: {})):
        with pytest.raises(ValueError, match="evaluate_every"):
            train(Tiny(), micro_batches, loss_fn, TrainConfig(2, 1e-3), evaluate=evaluate, evaluate_every=every)
    with pytest.raises(ValueError, match="loss"):
        train(Tiny(), micro_batches, loss_fn, TrainConfig(1, 1e-3), evaluate=lambda model: {"loss": 1.0})


# --- the step -------------------------------------------------------------------------------------


def masked(step):
    """Four unequal micro-batches with unequal shares of kept tokens, one of them with none at all."""
    batches = micro_batches(step, sizes=(1, 9, 4, 6))
    for i, (_, y) in enumerate(batches):
        y[torch.arange(len(y)) % (i + 1) > 0] = -100
    batches[2][1].fill_(-100)
    return batches


def reference(model, batches, config):
    """One big batch a step, the mean over kept tokens, and plain AdamW written out from its paper."""
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()}
    losses, norms = [], []
    model.train()
    for step in range(config.steps):
        x, y = (torch.cat(parts) for parts in zip(*batches(step)))
        keep = y != -100
        loss = -model(x)[keep].log_softmax(-1).gather(1, y[keep, None]).mean()
        model.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        scale = config.clip / norm if norm > config.clip else 1.0
        b1, b2 = config.betas
        lr = lr_at(step, config)
        with torch.no_grad():
            for p, (m, v) in moments.items():
                g = p.grad * scale
                m.mul_(b1).add_((1 - b1) * g)
                v.mul_(b2).add_((1 - b2) * g * g)
                if p.ndim >= 2:
                    p.mul_(1 - lr * config.weight_decay)
                p -= lr * (m / (1 - b1 ** (step + 1))) / ((v / (1 - b2 ** (step + 1))).sqrt() + 1e-8)
        losses.append(loss.item())
        norms.append(norm)
    return losses, norms


@pytest.mark.parametrize("clip", [math.inf, 0.9])
def test_accumulation_equals_one_big_batch(clip):
    config = TrainConfig(steps=9, lr=0.03, warmup=2, weight_decay=0.3, clip=clip)
    ours, theirs = Tiny().double(), Tiny().double()
    log = train(ours, masked, loss_fn, config)
    losses, norms = reference(theirs, masked, config)
    torch.testing.assert_close([row["loss"] for row in log], losses, rtol=0, atol=1e-10)
    torch.testing.assert_close([row["grad_norm"] for row in log], norms, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=1e-10)
    if clip == 0.9:
        assert min(norms) < clip < max(norms), "both sides of the threshold must be met for the test to count"


def test_log_counts_tokens():
    log = train(Tiny(), masked, loss_fn, TrainConfig(3, 1e-3, warmup=2))
    kept = [int(sum((y != -100).sum() for _, y in masked(step))) for step in range(3)]
    assert [row["kept"] for row in log] == kept
    assert [row["supervised"] for row in log] == np.cumsum(kept).tolist()
    assert [row["step"] for row in log] == [0, 1, 2]
    assert [row["lr"] for row in log] == pytest.approx([0.5e-3, 1e-3, 1e-3])


def test_tensor_weights():
    def tensor_weight(model, batch):
        loss, weight = loss_fn(model, batch)
        return loss, torch.tensor(weight)

    a, b = Tiny(), Tiny()
    config = TrainConfig(4, 1e-2)
    assert train(a, masked, loss_fn, config) == train(b, masked, tensor_weight, config)
    assert_same(a.state_dict(), b.state_dict())


def test_step_without_kept_tokens_does_nothing():
    """Steps 0 and 2 keep nothing (a zero, a constant without gradient, a NaN of 0 / 0, no batch at all)."""

    def batches(step):
        if step == 2:
            return []
        kept = micro_batches(step)
        return kept if step in (1, 3) else [(x, torch.full_like(y, -100)) for x, y in kept]

    def loss(model, batch):
        loss, weight = loss_fn(model, batch)
        if weight == 0:
            return (loss / weight, 0) if len(batch[0]) == 5 else (torch.zeros(()), 0)
        return loss, weight

    model = Tiny()
    before, after = model.mix.weight.clone(), []
    log = train(
        model,
        batches,
        loss,
        TrainConfig(4, 1e-2, warmup=4),
        evaluate=lambda m: after.append(m.mix.weight.clone()) or {},
        evaluate_every=1,
    )
    assert [row["loss"] is None for row in log] == [True, False, True, False]
    assert [row["grad_norm"] is None for row in log] == [True, False, True, False]
    assert [row["kept"] for row in log] == [0, 8, 0, 8]
    assert torch.equal(after[0], before) and torch.equal(after[2], after[1])
    assert not torch.equal(after[1], before) and not torch.equal(after[3], after[2])
    assert all(p.isfinite().all() for p in model.parameters())
    json.dumps(log, allow_nan=False)


def test_weight_decay_leaves_vectors_alone():
    """A loss whose gradient is exactly zero: what moves, moves by decay alone."""
    model = Tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(steps=1, lr=0.1, weight_decay=0.5)
    train(model, lambda step: [None], lambda m, b: (sum((p * 0).sum() for p in m.parameters()), 1), config)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim == 2 else 1.0))
    assert {p.ndim for p in model.parameters()} == {1, 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite(value):
    def loss(model, batch):
        good, weight = loss_fn(model, batch)
        return good * (value if len(seen) > 4 else 1.0), weight  # the second micro-batch of step 2

    seen = []
    model = Tiny()
    after = []
    with pytest.raises(TrainingError, match=r"step 2.*(nan|inf)"):
        train(
            model,
            micro_batches,
            lambda m, b: seen.append(b) or loss(m, b),
            TrainConfig(5, 1e-2),
            evaluate=lambda m: after.append(m.mix.weight.clone()) or {},
            evaluate_every=1,
        )
    assert torch.equal(model.mix.weight, after[1]), "the weights are those before the failed step"


def test_gradient_that_is_not_finite():
    def loss(model, batch):
        x = (model.norm.weight * 0).sum()
        return x.sqrt() * 1.0, 1  # value 0, slope inf * 0 = NaN

    with pytest.raises(TrainingError, match="step 0"):
        train(Tiny(), micro_batches, loss, TrainConfig(2, 1e-2))


def test_loss_without_parameters():
    with pytest.raises(TrainingError, match=r"step 0.*parameter"):
        train(Tiny(), micro_batches, lambda m, b: (torch.ones(()), 1), TrainConfig(2, 1e-2))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore advice."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_what_to_lower(error):
    def loss(model, batch):
        raise error

    with pytest.raises(TrainingError, match=r"^step 0: out of memory; lower the rows or the length") as raised:
        train(Tiny(), micro_batches, loss, TrainConfig(2, 1e-2))
    said = str(raised.value)
    assert "micro-batch, here (5,) and (5,)" in said and "the width of the model, here 120 weights" in said
    assert "\n" not in said
    with pytest.raises(TrainingError, match="step 1: evaluate: out of memory; lower"):
        train(Tiny(), micro_batches, loss_fn, TrainConfig(2, 1e-2), evaluate=lambda model: loss(model, None))


def test_other_errors_of_a_loss_are_its_own():
    def loss(model, batch):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        train(Tiny(), micro_batches, loss, TrainConfig(2, 1e-2))


def test_frozen_parameters_stay():
    model = Tiny()
    model.mix.weight.requires_grad_(False)
    before = model.mix.weight.clone()
    train(model, micro_batches, loss_fn, TrainConfig(3, 1e-2))
    assert torch.equal(model.mix.weight, before)


def test_training_learns():
    model = Tiny()
    log = train(model, lambda step: micro_batches(0), loss_fn, TrainConfig(150, 0.03, warmup=5))
    assert log[0]["loss"] > 1.5 and log[-1]["loss"] < 0.8


def test_bf16_autocast_only_when_asked():
    for bf16 in (False, True):
        seen = []

        def loss(model, batch, seen=seen):
            seen.append(model.mix(model.embed(batch[0])).dtype)
            return loss_fn(model, batch)

        model = Tiny()
        train(model, micro_batches, loss, TrainConfig(2, 1e-2, bf16=bf16))
        assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}
        assert all(p.dtype == torch.float32 for p in model.parameters())


# --- repeatability --------------------------------------------------------------------------------


def noisy_run(path=None, batches=micro_batches, seed=5, init=3, **more):
    model = Tiny(seed=init, dropout=0.3)
    config = TrainConfig(steps=20, lr=0.02, warmup=3, seed=seed, checkpoint_every=3)
    log = train(model, batches, noisy_loss, config, checkpoint=path, label="", **more)
    return model.state_dict(), log


def test_same_seed_same_bits_other_seed_other_bits():
    a, log_a = noisy_run()
    torch.rand(7), np.random.rand(7), random.random()
    b, log_b = noisy_run()
    assert_same(a, b)
    assert log_a == log_b
    c, _ = noisy_run(seed=6)
    assert not torch.equal(a["mix.weight"], c["mix.weight"])


def test_evaluation_is_logged_and_does_not_disturb():
    def evaluate(model):
        assert not model.training and not torch.is_grad_enabled()
        np.random.rand(), random.random(), random.gauss(0, 1)
        return {"draw": torch.rand(())}

    plain, log = noisy_run()
    weights, rows = noisy_run(evaluate=evaluate, evaluate_every=6)
    assert_same(plain, weights)
    assert [row["step"] for row in rows if "draw" in row] == [5, 11, 17, 19]
    assert all(isinstance(row["draw"], float) for row in rows if "draw" in row)
    assert [{k: v for k, v in row.items() if k != "draw"} for row in rows] == log
    _, rows = noisy_run(evaluate=evaluate)
    assert [row["step"] for row in rows if "draw" in row] == [19]


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash", [0, 2, 3, 5, 13, 18, 19])
def test_resume_equals_undisturbed(tmp_path, crash):
    evaluate = {"evaluate": lambda model: {"w": model.mix.weight.sum()}, "evaluate_every": 4}
    whole, log = noisy_run(tmp_path / "whole", **evaluate)
    path = tmp_path / "new folder" / "crashed"

    def crashing(step):
        if step == crash:
            raise Crash
        return micro_batches(step)

    steps = []
    with pytest.raises(Crash):
        noisy_run(path, crashing, **evaluate)
    torch.rand(7), np.random.randn(3), random.gauss(0, 1)  # whatever happens before the second start
    again, log_again = noisy_run(
        path,
        lambda step: steps.append(step) or micro_batches(step),
        init=3 if crash < 3 else 99,  # the weights come from the checkpoint where there is one
        **evaluate,
    )
    assert steps == list(range(crash // 3 * 3, 20))
    assert_same(whole, again)
    assert log == log_again
    assert_same(tensors_of(tmp_path / "whole")[0], tensors_of(path)[0])  # moments and generators as well


def test_finished_run_is_not_trained_again(tmp_path):
    whole, log = noisy_run(tmp_path / "run")
    draws = torch.rand(3), np.random.rand(3), random.random()
    again, log_again = noisy_run(tmp_path / "run", batches=None, init=99)
    assert_same(whole, again)
    assert log == log_again
    assert torch.equal(draws[0], torch.rand(3)) and (draws[1] == np.random.rand(3)).all()
    assert draws[2] == random.random()


# --- the checkpoint file --------------------------------------------------------------------------


def test_file_holds_tied_weights_once(tmp_path):
    noisy_run(tmp_path / "run.safetensors")
    tensors, metadata = tensors_of(tmp_path / "run.safetensors")
    model = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    assert sorted(model) == ["embed.weight", "mix.bias", "mix.weight", "norm.bias", "norm.weight", "seen"]
    assert json.loads(metadata["log"])[-1]["step"] == 19 and metadata["step"] == "20"
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors", "run.safetensors.previous"]
    assert tensors_of(tmp_path / "run.safetensors.previous")[1]["step"] == "18"


class Wider(Tiny):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.extra = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"config": {"lr": 0.5}}, "lr: 0.01 there, 0.5 here"),
        ({"config": {"steps": 7, "seed": 8}}, "steps: 4 there, 7 here; seed: 0 there, 8 here"),
        ({"label": "k = 3"}, "label:  there, k = 3 here"),
        ({"model": Wider()}, "weight extra: absent there, (3,) torch.float32 here"),
        ({"model": Tiny().double()}, "torch.float32 there, (6,) torch.float64 here"),
    ],
)
def test_checkpoint_of_another_run(tmp_path, change, says):
    path = tmp_path / "run"

    def run(model=None, config=None, label=""):
        settings = TrainConfig(**({"steps": 4, "lr": 0.01} | (config or {})))
        return train(model or Tiny(), micro_batches, loss_fn, settings, checkpoint=path, label=label)

    run()
    held = path.read_bytes()
    with pytest.raises(TrainingError) as error:
        run(**change)
    assert says in str(error.value)
    assert str(path) in str(error.value) and "delete it or choose another path" in str(error.value)
    assert path.read_bytes() == held


@pytest.mark.parametrize("kind", ["half", "header", "empty", "text", "plain safetensors", "folder"])
def test_unreadable_checkpoint(tmp_path, kind):
    path = tmp_path / "run"
    noisy_run(path)
    path.with_name("run.previous").unlink()
    whole = path.read_bytes()
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "plain safetensors":
        save_file({"x": torch.ones(2)}, path)
    else:
        cut = {"half": whole[: len(whole) // 2], "header": whole[:100], "empty": b"", "text": b"{}" * 50}
        path.write_bytes(cut[kind])
    with pytest.raises(TrainingError, match="not a readable checkpoint") as error:
        noisy_run(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("crash", [4, 5], ids=["old one to be moved", "new one to be moved"])
def test_crash_while_writing_leaves_the_previous_checkpoint(tmp_path, monkeypatch, crash):
    """The third checkpoint, of step 9, is not put into place: the crash comes before one of its two moves."""
    whole, _ = noisy_run(tmp_path / "whole")
    path, previous = tmp_path / "run", tmp_path / "run.previous"
    replace, calls = os.replace, []

    def crashing(*args):
        calls.append(args)
        if len(calls) == crash:
            raise Crash
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crashing)
        with pytest.raises(Crash):
            noisy_run(path)
    assert path.exists() == (crash == 4) and not path.with_name("run.tmp").exists()
    assert tensors_of(path if crash == 4 else previous)[1]["step"] == "6"
    path.with_name("run.tmp").write_bytes(b"half a file")  # what a kill leaves
    steps = []
    with nullcontext() if crash == 4 else pytest.warns(UserWarning, match="missing; going on from .* step 6"):
        again, _ = noisy_run(path, lambda step: steps.append(step) or micro_batches(step))
    assert steps[0] == 6
    assert_same(whole, again)
    assert sorted(os.listdir(tmp_path)) == ["run", "run.previous", "whole", "whole.previous"]


# --- kill -9 --------------------------------------------------------------------------------------


def child_until(path, event):
    """Run a child; SIGKILL it at the given event (None: let it finish). -> its events."""
    ours, theirs = multiprocessing.Pipe()
    child = process(jobs.run_announced, path, theirs)
    theirs.close()
    events = []
    with suppress(EOFError):
        while True:
            events.append(ours.recv())
            if events[-1] == event:
                child.kill()
                break
            ours.send("go on")  # the child waits for it, so the kill cannot come too late
    child.join()
    assert child.exitcode == (0 if event is None else -signal.SIGKILL)
    return events


def test_sigkill_and_resume_equals_undisturbed(tmp_path):
    child_until(tmp_path / "whole", None)
    path = tmp_path / "killed"
    # before the first checkpoint; between two; between writing and moving that of step 28: its forerunner, itself
    events = "step 4", "step 26", "replace killed.previous", "replace killed", "step 47", None
    starts = [next(said for said in child_until(path, event) if said.startswith("step")) for event in events]
    assert starts == ["step 0", "step 0", "step 21", "step 21", "step 21", "step 42"]
    tensors, metadata = tensors_of(path)
    whole, whole_metadata = tensors_of(tmp_path / "whole")
    assert_same(tensors, whole)
    assert metadata == whole_metadata
    assert sorted(os.listdir(tmp_path)) == ["killed", "killed.previous", "whole", "whole.previous"]


# --- CUDA -----------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_cuda_resume_restores_the_device_generator(tmp_path):
    draws = []

    def batches(step):
        if crash and step == 5:
            raise Crash
        return [(x.cuda(), y.cuda()) for x, y in micro_batches(step)]

    def loss(model, batch):
        draws.append(torch.rand((), device="cuda").item())
        value, weight = loss_fn(model, batch)
        return value, torch.tensor(weight, device="cuda")

    def run(path):
        model = Tiny(dropout=0.3).cuda()
        log = train(model, batches, loss, TrainConfig(8, 1e-2, bf16=True, checkpoint_every=4), checkpoint=path)
        return model.state_dict(), log

    crash = False
    whole, _ = run(tmp_path / "whole")
    undisturbed, draws[:], crash = list(draws), [], True
    with pytest.raises(Crash):
        run(tmp_path / "run")
    draws[:], crash = [], False
    again, log = run(tmp_path / "run")
    assert draws == undisturbed[8:], "two micro-batches a step: the resumed run draws from step 4 on"
    assert len(log) == 8
    torch.testing.assert_close(again, whole)
