"""Next-token training: one loop, exact gradient accumulation, checkpoints that survive a kill."""

import hashlib
import json
import math
import os
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from tqdm import tqdm


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, or a checkpoint that does not fit."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. The defaults of AdamW and the schedule are those of the goldfish paper.

    steps: optimiser steps, >= 1. lr: peak learning rate, > 0. warmup: steps of linear warm-up, 0 to steps.
    min_lr_ratio: final over peak learning rate, 0 to 1. weight_decay: on matrices only, >= 0.
    betas: of AdamW, each in [0, 1). clip: largest global norm of the gradient, > 0 (infinity: no clipping).
    seed: of python, numpy and torch, 0 to 2**32 - 1. bf16: autocast of the loss to bfloat16.
    checkpoint_every: steps between checkpoints; 0 writes one at the end only.

    Raises ValueError naming the setting, its value and what is allowed.
    """

    steps: int
    lr: float
    warmup: int = 0
    min_lr_ratio: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False
    checkpoint_every: int = 0

    def __post_init__(self):
        def whole(value, low, high=math.inf):
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

        def number(value):
            return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)

        def require(name, good, allowed):
            if not good:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be {allowed}")

        def pair_of_betas(value):
            pair = isinstance(value, (tuple, list)) and len(value) == 2
            return pair and all(number(b) and 0 <= b < 1 for b in value)

        require("steps", whole(self.steps, 1), "a whole number >= 1")
        require("lr", number(self.lr) and 0 < self.lr < math.inf, "a finite number > 0")
        require("warmup", whole(self.warmup, 0, self.steps), f"a whole number from 0 to steps = {self.steps}")
        require("min_lr_ratio", number(self.min_lr_ratio) and 0 <= self.min_lr_ratio <= 1, "from 0 to 1")
        decay = self.weight_decay
        require("weight_decay", number(decay) and 0 <= decay < math.inf, "a finite number >= 0")
        require("betas", pair_of_betas(self.betas), "two numbers, each >= 0 and < 1")
        require("clip", number(self.clip) and self.clip > 0, "a number > 0")
        require("seed", whole(self.seed, 0, 2**32 - 1), "a whole number from 0 to 2**32 - 1")
        require("bf16", isinstance(self.bf16, bool), "true or false")
        require("checkpoint_every", whole(self.checkpoint_every, 0), "a whole number >= 0")


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of step 0 .. steps - 1: linear warm-up to lr, then a cosine down to lr * min_lr_ratio.

    The peak is reached at step warmup - 1 (the last of the warm-up), the minimum at the very last step.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - 1 - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


def train(
    model: nn.Module,
    batches: Callable[[int], list],
    loss_fn: Callable[[nn.Module, object], tuple[torch.Tensor, int | torch.Tensor]],
    config: TrainConfig,
    checkpoint: Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    label: str = "",
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place and return the log, one row a step.

    batches(step): the micro-batches of step 0 .. steps - 1; a pure function, so data order needs no state.
    loss_fn(model, batch): the loss summed over the kept (supervised) tokens, a scalar, and their number.
    The gradient of a step is that of sum(loss) / sum(kept) over all its micro-batches, not a mean of means.
    evaluate(model): figures added to the row of every `evaluate_every`-th step and of the last; it runs in
    eval mode without gradients, and the random numbers it draws do not disturb the training.
    label: part of what identifies the run (see checkpoint), and shown by the progress bar, if `progress`.

    Row: step, loss (nats per kept token), lr, grad_norm (before clipping), kept, supervised (kept so far). A
    step that keeps no token changes nothing; its loss and grad_norm are None.

    checkpoint: one safetensors file, replaced atomically. Where it exists with the same config, weights'
    shapes and label the run goes on from it, on a CPU bit for bit as if it had never stopped; a finished
    run's weights are loaded and its log is returned. The data and the loss are the caller's to name in
    `label`: they are not compared.

    Raises TrainingError: a loss or gradient that is not finite (the weights stay as before that step), or a
    checkpoint of another run or one that cannot be read.
    """
    if evaluate_every < 0 or (evaluate_every and evaluate is None):
        raise ValueError(f"evaluate_every = {evaluate_every}: must be >= 0, and 0 where evaluate is not given")
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    device = parameters[0].device
    optimizer = _adamw(parameters, config)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)  # CUDA as well

    log = []
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        _temporary(checkpoint).unlink(missing_ok=True)
        identity = _identity(model, config, label)
        if checkpoint.exists():
            log = _load(checkpoint, identity, model, optimizer, named, device)
    supervised = log[-1]["supervised"] if log else 0

    model.train()
    steps = range(len(log), config.steps)
    bar = tqdm(steps, desc=label, total=config.steps, initial=len(log), mininterval=0.5, disable=not progress)
    for step in bar:
        lr = lr_at(step, config)
        loss, grad_norm, kept = _step(model, batches(step), loss_fn, optimizer, parameters, lr, config, step)
        supervised += kept
        row = dict(step=step, loss=loss, lr=lr, grad_norm=grad_norm, kept=kept, supervised=supervised)
        log.append(row)
        if loss is not None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)

        last = step + 1 == config.steps
        if evaluate is not None and (last or (evaluate_every and (step + 1) % evaluate_every == 0)):
            with _undisturbed(model, device):
                figures = {name: float(value) for name, value in evaluate(model).items()}
            if clash := row.keys() & figures.keys():
                raise ValueError(f"evaluate returned {sorted(clash)}: names that the log uses itself")
            row.update(figures)
        due = config.checkpoint_every and (step + 1) % config.checkpoint_every == 0
        if checkpoint is not None and (last or due):
            _save(checkpoint, identity, model, optimizer, named, device, log)
    return log


def _adamw(parameters, config):
    """AdamW with decay on matrices only; the fused form is the fastest on CPU as well as on CUDA."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)


def _step(model, micro_batches, loss_fn, optimizer, parameters, lr, config, step):
    """One optimiser step over its micro-batches -> (loss per kept token, norm of its gradient, kept)."""
    optimizer.zero_grad(set_to_none=True)
    loss_sum, kept = 0.0, 0
    for batch in micro_batches:
        with torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=config.bf16):
            loss, weight = loss_fn(model, batch)
        if loss.requires_grad:  # a micro-batch that keeps nothing may return a constant
            loss.backward()
        loss_sum, kept = loss_sum + loss.detach(), kept + weight
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)  # of the sum; up to here nothing waits for the device

    kept = int(kept)
    if kept == 0:
        return None, None, 0
    loss, norm = float(loss_sum) / kept, float(norm) / kept
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(f"step {step}: the loss is {loss} and the norm of its gradient {norm}; both must be finite")
    if not grads:
        raise TrainingError(f"step {step}: the loss does not depend on any parameter of the model")
    torch._foreach_mul_(grads, (1.0 if norm <= config.clip else config.clip / norm) / kept)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return loss, norm, kept


@contextmanager
def _undisturbed(model, device):
    """Eval mode, no gradients, and every random state put back afterwards."""
    state = _random_state(device)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
        _set_random_state(*state, device)


def _random_state(device):
    """States of the generators: python's and numpy's as JSON-able lists, torch's as uint8 tensors."""
    name, keys, *rest = np.random.get_state()
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}, tensors


def _set_random_state(lists, tensors, device):
    version, words, gauss = lists["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = lists["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)


def _identity(model, config, label):
    """What makes two runs the same run, as a flat JSON-able dict."""
    identity = {"label": label} | asdict(config)
    for name, t in _weights(model).items():
        identity[f"weight {name}"] = f"{tuple(t.shape)} {t.dtype}"
    return json.loads(json.dumps(identity))


def _fingerprint(identity):
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _weights(model):
    """Parameters and persistent buffers by name, a tied one under its first name only."""
    named = model.state_dict(keep_vars=True)
    first = {id(t): name for name, t in reversed(named.items())}
    return {name: t for name, t in named.items() if first[id(t)] == name}


def _temporary(path):
    return path.with_name(path.name + ".tmp")


def _save(path, identity, model, optimizer, named, device, log):
    lists, random_tensors = _random_state(device)
    tensors = {f"model.{name}": t for name, t in _weights(model).items()}
    for name, p in named.items():
        tensors |= {f"adamw.{key}.{name}": t for key, t in optimizer.state[p].items()}
    tensors |= {f"random.{name}": t for name, t in random_tensors.items()}
    metadata = {
        "fingerprint": _fingerprint(identity),
        "identity": json.dumps(identity),
        "step": str(len(log)),
        "random": json.dumps(lists),
        "log": json.dumps(log),
    }
    temporary = _temporary(path)
    content = save({name: t.detach().contiguous() for name, t in tensors.items()}, metadata)
    with open(temporary, "wb") as file:  # not save_file: killed, it leaves a file of a random name behind
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path, identity, model, optimizer, named, device):
    """Put back weights, moments and random states -> the log so far."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            fingerprint, theirs = metadata["fingerprint"], json.loads(metadata["identity"])
            lists, log = json.loads(metadata["random"]), json.loads(metadata["log"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: not a readable checkpoint ({error}); delete it to start afresh, or choose another path"
        ) from error
    if fingerprint != _fingerprint(identity):
        keys = [key for key in theirs | identity if theirs.get(key) != identity.get(key)]
        shown = "; ".join(f"{k}: {theirs.get(k, 'absent')} there, {identity.get(k, 'absent')} here" for k in keys[:5])
        more = f"; and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise TrainingError(f"{path}: the checkpoint of another run ({shown}{more}); delete it or choose another path")

    with torch.no_grad():
        for name, t in _weights(model).items():
            t.copy_(tensors[f"model.{name}"])
    for name, p in named.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (t := tensors.get(f"adamw.{key}.{name}")) is not None:
                optimizer.state[p][key] = t.to(p.device, copy=True)
    states = {name: tensors[f"random.{name}"] for name in ("torch", "cuda") if f"random.{name}" in tensors}
    _set_random_state(lists, states, device)
    return log
