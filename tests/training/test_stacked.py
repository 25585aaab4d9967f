"""Models trained as one stacked model: what `train` makes of each, left where `train` would leave it."""

import pytest
import torch

from paperwalk.kernels.linear_cross_entropy import linear_cross_entropy
from paperwalk.training import TrainConfig, TrainingError, train
from paperwalk.training.stacked import train_stacked
from training.stack import CONFIGS, SHAPES, A, batches, drawn, killed_at, labelled, loss_fn, new_models, of_one
from training.tiny import tensors_of
from training.workers import process


def evaluate(model):
    assert not model.training
    return {"weights": sum(float(p.double().sum()) for p in model.parameters())}


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_training_one_by_one(tmp_path, shape):
    apart, together = new_models(shape), new_models(shape)
    often = dict(evaluate=evaluate, evaluate_every=4, progress=False)
    logs = [train(m, of_one(n), loss_fn, CONFIGS[n], label=f"run {n}", **often) for n, m in enumerate(apart)]
    files, labels = labelled(tmp_path)
    train_stacked(together, batches, loss_fn, CONFIGS, files, labels=labels, **often)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)

    def not_again(step):
        raise AssertionError("the run is finished")

    for n, (one, stacked, again) in enumerate(zip(apart, together, new_models(shape))):
        log = train(again, not_again, loss_fn, CONFIGS[n], files[n], label=labels[n], **often)
        for p, q, r in zip(one.parameters(), stacked.parameters(), again.parameters()):
            torch.testing.assert_close(q, p, rtol=0, atol=1e-9)
            assert torch.equal(q, r)
        assert [row.keys() for row in log] == [row.keys() for row in logs[n]]
        for row, expected in zip(log, logs[n]):
            assert row == {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()}
    assert logs[1][3]["loss"] is None


def test_goes_on_from_what_a_longer_training_left(tmp_path):
    """AdamW's moments and steps are left too: `train` goes on from them as from its own."""
    config = TrainConfig(6, 1e-2)
    whole = train(new_models()[0], of_one(0), loss_fn, TrainConfig(12, 1e-2, min_lr_ratio=1), progress=False)
    assert len(whole) == 12
    files, labels = labelled(tmp_path)
    train_stacked(new_models(), batches, loss_fn, [config] * A, files, labels=labels, progress=False)
    alone = new_models()[0]
    train(alone, of_one(0), loss_fn, config, tmp_path / "alone", label=labels[0], progress=False)
    (ours, _), (theirs, _) = tensors_of(files[0]), tensors_of(tmp_path / "alone")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-9)


def test_a_finished_run_is_read_and_another_refused(tmp_path):
    files, labels = labelled(tmp_path)
    first = new_models()
    train_stacked(first, batches, loss_fn, CONFIGS, files, labels=labels, progress=False)
    again = new_models()
    train_stacked(again, None, loss_fn, CONFIGS, files, labels=labels, progress=False)  # wants no batch
    for one, other in zip(first, again):
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters()))
    with pytest.raises(TrainingError, match="the checkpoint of another run"):
        train_stacked(new_models(), batches, loss_fn, CONFIGS, files, labels=["another"] * A, progress=False)


def test_what_train_has_begun_is_trained_anew(tmp_path):
    files, labels = labelled(tmp_path)
    cut, whole = new_models()[0], new_models()

    def until(step):
        if step == 7:
            raise KeyboardInterrupt
        return of_one(0)(step)

    with pytest.raises(KeyboardInterrupt):
        train(cut, until, loss_fn, CONFIGS[0], files[0], label=labels[0], progress=False)
    assert files[0].exists()  # after five steps
    train_stacked(whole, batches, loss_fn, CONFIGS, files, labels=labels, progress=False)
    alone = new_models()[0]
    train(alone, of_one(0), loss_fn, CONFIGS[0], progress=False)
    for p, q in zip(alone.parameters(), whole[0].parameters()):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-9)


def test_killed_it_goes_on_to_the_same_weights(tmp_path):
    whole, resumed = new_models(), new_models()
    files, labels = labelled(tmp_path / "whole")
    train_stacked(whole, drawn, loss_fn, CONFIGS, files, labels=labels, progress=False)
    worker = process(killed_at, 7, tmp_path / "cut")
    worker.join()
    assert worker.exitcode == 9
    seen = []

    def noted(step):
        seen.append(step)
        return drawn(step)

    files, labels = labelled(tmp_path / "cut")
    train_stacked(resumed, noted, loss_fn, CONFIGS, files, labels=labels, progress=False)
    assert seen == list(range(5, 12))
    for one, other in zip(whole, resumed):
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters()))


def test_a_loss_that_is_not_finite_is_said_and_changes_no_weight(tmp_path):
    models, before = new_models(), new_models()

    def diverging(model, batch):
        loss, kept = loss_fn(model, batch)
        return loss / (loss - loss), kept

    files, labels = labelled(tmp_path)
    with pytest.raises(TrainingError, match=r"run 0: step 0: the loss is (inf|nan)"):
        train_stacked(models, batches, diverging, CONFIGS, files, labels=labels, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(models[0].parameters(), before[0].parameters()))
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(models=[]), "models = 0: must be at least one"),
        (dict(configs=CONFIGS[:2]), "configs = 2: must be one for each of the 3 models"),
        (dict(labels=["one"]), "labels = 1: must be one for each of the 3 models"),
        (dict(configs=[*CONFIGS[:2], TrainConfig(13, 1e-3)]), "steps = .*must be the same in all configs"),
        (dict(models=[*new_models()[:2], new_models("untied")[0]]), "must be of the same parameters as models"),
        (dict(models=[*new_models()[:2], new_models(dtype=torch.float32)[0]]), "must be of the same parameters"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, said):
    files, labels = labelled(tmp_path)
    given = dict(models=new_models(), batches=batches, loss_fn=loss_fn, configs=CONFIGS, files=files, labels=labels)
    with pytest.raises(ValueError, match=said):
        train_stacked(**given | change, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_recorded_on_a_gpu_it_equals_training_one_by_one(tmp_path, shape):
    """In float64, where products have no short cuts: the recorded updates are those of `train`."""
    apart, together = new_models(shape, device="cuda"), new_models(shape, device="cuda")
    files, labels = labelled(tmp_path)
    for n, model in enumerate(apart):
        train(model, of_one(n, device="cuda"), loss_fn, CONFIGS[n], progress=False)
    train_stacked(together, batches, loss_fn, CONFIGS, files, labels=labels, progress=False)
    for one, stacked in zip(apart, together):
        for p, q in zip(one.parameters(), stacked.parameters()):
            torch.testing.assert_close(q, p, rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_the_fused_loss_can_be_recorded(tmp_path):
    def fused(model, batch):
        ids, keep = batch
        kept = keep[:, 1:]
        return linear_cross_entropy(model.hidden(ids)[:, :-1], model.lm_head, ids[:, 1:], kept), kept.sum()

    files, _ = labelled(tmp_path)
    for n, model in enumerate(new_models(dtype=torch.float32, device="cuda")):
        of_n = lambda step, n=n: [each[n : n + 1] for each in batches(step)]
        train_stacked([model], of_n, fused, CONFIGS[n : n + 1], files[n : n + 1], progress=False)
        alone = new_models(dtype=torch.float32, device="cuda")[n]
        train(alone, of_one(n, device="cuda"), loss_fn, CONFIGS[n], progress=False)
        for p, q in zip(alone.parameters(), model.parameters()):
            torch.testing.assert_close(q, p, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_recorded_training_in_bf16_falls_as_one_by_one(tmp_path):
    configs = [TrainConfig(60, 3e-3, 5, bf16=True)] * A
    same = lambda step: batches(step % 3)
    files, labels = labelled(tmp_path)
    train_stacked(new_models(dtype=torch.float32, device="cuda"), same, loss_fn, configs, files, labels=labels)
    for n, model in enumerate(new_models(dtype=torch.float32, device="cuda")):
        log = train(model, of_one(n, same, "cuda"), loss_fn, configs[n], progress=False)
        ours = train(model, same, loss_fn, configs[n], files[n], label=labels[n], progress=False)
        assert ours[-1]["loss"] < 0.9 * ours[0]["loss"]
        assert ours[0]["loss"] == pytest.approx(log[0]["loss"], rel=0.02)
        assert ours[-1]["loss"] == pytest.approx(log[-1]["loss"], rel=0.05)
