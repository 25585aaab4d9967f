"""Next-token training: one loop, exact gradient accumulation, checkpoints that survive a kill."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from paperwalk.checks import is_number, is_whole, require, require_positive, require_whole
from paperwalk.profiling import phase
from paperwalk.training import checkpoints, distributed
from paperwalk.training.checkpoints import TrainingError


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
        require_whole(1, steps=self.steps)
        require_whole(0, checkpoint_every=self.checkpoint_every)
        require_positive(lr=self.lr)
        warmup = is_whole(self.warmup, 0, self.steps)
        require("warmup", self.warmup, warmup, f"a whole number from 0 to steps = {self.steps}")
        ratio = is_number(self.min_lr_ratio) and 0 <= self.min_lr_ratio <= 1
        require("min_lr_ratio", self.min_lr_ratio, ratio, "a number from 0 to 1")
        decay = is_number(self.weight_decay) and self.weight_decay >= 0
        require("weight_decay", self.weight_decay, decay, "a finite number of at least 0")
        betas = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        betas = betas and all(is_number(beta) and 0 <= beta < 1 for beta in self.betas)
        require("betas", self.betas, betas, "two numbers, each at least 0 and below 1")
        clip = self.clip == math.inf or (is_number(self.clip) and self.clip > 0)
        require("clip", self.clip, clip, "a number above 0 (infinity: no clipping)")
        require("seed", self.seed, is_whole(self.seed, 0, 2**32 - 1), "a whole number from 0 to 2**32 - 1")
        require("bf16", self.bf16, isinstance(self.bf16, bool), "True or False")


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

    checkpoint: a safetensors file, replaced atomically; the one before it is kept as NAME.previous, from which the
    run goes on, with a warning, when the newest is damaged or missing. Where it exists with the same config, weights'
    shapes and label the run goes on from it, on a CPU bit for bit as if it had never stopped; a finished
    run's weights are loaded and its log is returned. The data and the loss are the caller's to name in
    `label`: they are not compared.

    In a process group (`paperwalk.training.distributed`) all workers call this with the same arguments and each takes
    its share of a step's micro-batches, of which there should be at least as many as workers; each loss must depend on
    the model. The checkpoint is then a folder; any number of workers, and a single process, can go on from it.
    Persistent buffers, and the figures of `evaluate`, are those of worker 0.

    Raises TrainingError: a loss or gradient that is not finite (the weights stay as before that step), too little
    memory, a checkpoint of another run, one that cannot be read (and none before it), or no space to write one.
    """
    if evaluate_every < 0 or (evaluate_every and evaluate is None):
        raise ValueError(f"evaluate_every = {evaluate_every}: must be >= 0, and 0 where evaluate is not given")
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    device = parameters[0].device
    optimizer = _adamw(parameters, config)
    seed_all(config.seed)

    log = []
    if checkpoint is not None:
        checkpoint, identity = Path(checkpoint), identity_of(model, config, label)
        log = _resume(checkpoints.load(checkpoint, identity), model, optimizer, named, device, config)
        if len(log) < config.steps:
            checkpoints.prepare(checkpoint)
    supervised = log[-1]["supervised"] if log else 0

    computing = distributed.replica(model)
    buffers = [t for t in _weights(model).values() if not isinstance(t, nn.Parameter)]
    model.train()
    steps = range(len(log), config.steps)
    hidden = not progress or distributed.rank() > 0
    bar = tqdm(steps, desc=label, total=config.steps, initial=len(log), mininterval=0.5, disable=hidden)
    for step in bar:
        lr = lr_at(step, config)
        with phase("data"):
            micro_batches = batches(step)
        loss, grad_norm, kept = _step(computing, micro_batches, loss_fn, optimizer, parameters, lr, config, step)
        distributed.broadcast_(buffers)
        supervised += kept
        row = dict(step=step, loss=loss, lr=lr, grad_norm=grad_norm, kept=kept, supervised=supervised)
        log.append(row)
        if loss is not None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)

        last = step + 1 == config.steps
        if evaluate is not None and (last or (evaluate_every and (step + 1) % evaluate_every == 0)):
            memory = memory_named(f"step {step}: evaluate", lambda: "what it takes at a time")
            with phase("evaluation"), undisturbed(model, device), memory:
                figures = {name: float(value) for name, value in evaluate(model).items()}
            figures = distributed.broadcast_object(figures)
            if clash := row.keys() & figures.keys():
                raise ValueError(f"evaluate returned {sorted(clash)}: names that the log uses itself")
            row.update(figures)
        due = config.checkpoint_every and (step + 1) % config.checkpoint_every == 0
        if checkpoint is not None and (last or due):
            states = distributed.all_gather_object(random_state(device))
            notes = {"identity": identity, "step": len(log), "log": log, "random": states}
            with memory_named(
                f"{checkpoint}: writing it", lambda: "the width of the model, of which it holds three copies"
            ):
                checkpoints.save(checkpoint, state_of(model, optimizer.state, named), notes)
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
    shares = distributed.local_micro_batches(micro_batches)
    for i, (batch, counts) in enumerate(shares):
        memory = memory_named(f"step {step}", lambda: _size_of_step(batch, model))
        with memory, distributed.accumulating(model, i + 1 == len(shares)):
            autocast = torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=config.bf16)
            with phase("forward"), autocast:
                loss, weight = loss_fn(model, batch)
            if not counts:
                loss, weight = loss * 0, 0
            if loss.requires_grad:  # a micro-batch that keeps nothing may return a constant
                with phase("backward"):
                    loss.backward()
            elif distributed.world_size() > 1:
                raise TrainingError(f"step {step}: a loss depends on no parameter, and the other workers wait for it")
        loss_sum, kept = loss_sum + loss.detach(), kept + weight
    with phase("optimiser"):
        return _update(optimizer, parameters, loss_sum, kept, lr, config, step)


def _update(optimizer, parameters, loss_sum, kept, lr, config, step):
    """The optimiser's part of a step: from gradients of a sum to new weights."""
    grads = [p.grad for p in parameters if p.grad is not None]
    # of the sum; up to here nothing waits for the device
    norm = distributed.full_tensor(nn.utils.get_total_norm(grads))
    loss_sum, kept, norm = _fetched(*distributed.all_reduce_sums(loss_sum, kept, parameters[0].device), norm)

    kept = int(kept)
    if kept == 0:
        return None, None, 0
    workers = distributed.world_size()  # over which the gradients were averaged, not added up
    loss, norm = loss_sum / kept, norm * workers / kept
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(f"step {step}: the loss is {loss} and the norm of its gradient {norm}; both must be finite")
    if not grads:
        raise TrainingError(f"step {step}: the loss does not depend on any parameter of the model")
    torch._foreach_mul_(grads, (1.0 if norm <= config.clip else config.clip / norm) * workers / kept)
    for group in optimizer.param_groups:
        group["lr"] = lr
    with memory_named(f"step {step}: AdamW", lambda: "the width of the model, of which it keeps two more copies"):
        optimizer.step()
    return loss, norm, kept


def _fetched(*scalars):
    """Scalars, numbers or tensors of any device and type, as numbers; those on a device come in one transfer."""
    known = [x.item() if isinstance(x, torch.Tensor) and x.device.type == "cpu" else x for x in scalars]
    there = [x.to(torch.float64) for x in known if isinstance(x, torch.Tensor)]
    come = iter(torch.stack(there).tolist() if there else ())
    return [next(come) if isinstance(x, torch.Tensor) else x for x in known]


@contextmanager
def memory_named(where: str, lower: Callable[[], str]) -> Iterator[None]:
    """Turns the many ways in which memory runs out into one TrainingError; lower() says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not known:
            raise
        said = str(error).split("\n")[0] or type(error).__name__
        raise TrainingError(f"{where}: out of memory; lower {lower()} ({said})") from error


def _size_of_step(batch, model):
    shapes = " and ".join(str(tuple(t.shape)) for t in _tensors(batch)) or "no tensors"
    weights = sum(p.numel() for p in model.parameters())
    return (
        f"the rows or the length of a micro-batch, here {shapes} (more and smaller ones leave the step as it is), "
        f"or the width of the model, here {weights:,} weights"
    )


def _tensors(batch):
    """The tensors in a micro-batch, whatever it is."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return [t for part in parts for t in _tensors(part)]


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, no gradients, and every random state put back afterwards."""
    state = random_state(device)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
        set_random_state(state, device)


def seed_all(common: int) -> None:
    """Seeds python, numpy and torch, each worker in its own way."""
    seed = distributed.worker_seed(common)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA as well


def random_state(device: torch.device) -> dict[str, Any]:
    """States of this worker's generators, JSON-able."""
    name, keys, *rest = cast(tuple, np.random.get_state())
    state: dict[str, Any] = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}
    state["torch"] = torch.get_rng_state().numpy().tobytes().hex()
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Puts back what `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    as_tensor = lambda text: torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
    torch.set_rng_state(as_tensor(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(as_tensor(state["cuda"]), device)


def identity_of(model: nn.Module, config: TrainConfig, label: str) -> dict[str, Any]:
    """What makes two runs the same run, as a flat JSON-able dict."""
    identity = {"label": label} | asdict(config)
    for name, t in _weights(model).items():
        identity[f"weight {name}"] = f"{tuple(t.shape)} {t.dtype}"
    return json.loads(json.dumps(identity))


def _weights(model):
    """Parameters and persistent buffers by name, a tied one under its first name only."""
    named = model.state_dict(keep_vars=True)
    first = {id(t): name for name, t in reversed(named.items())}
    return {name: t for name, t in named.items() if first[id(t)] == name}


def state_of(model: nn.Module, moments: Mapping, named: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name: weights, persistent buffers and AdamW's step and moments."""
    tensors = {f"model.{name}": t for name, t in _weights(model).items()}
    for name, p in named.items():
        tensors |= {f"adamw.{key}.{name}": t for key, t in moments[p].items()}
    return tensors


def _resume(saved, model, optimizer, named, device, config):
    """Put back weights, moments and random states -> the log so far."""
    if saved is None:
        return []
    for name, p in named.items():
        if f"adamw.step.{name}" in saved.names:  # a parameter that never had a gradient has no moments
            optimizer.state[p]["step"] = torch.zeros((), device=p.device)
            for key in ("exp_avg", "exp_avg_sq"):
                optimizer.state[p][key] = torch.zeros_like(p, requires_grad=False)
    saved.read_into(state_of(model, optimizer.state, named))
    states, rank = saved.notes["random"], distributed.rank()
    if rank < len(states):
        set_random_state(states[rank], device)
    else:  # a worker more than there were
        seed_all((config.seed + saved.notes["step"]) % 2**32)
    return saved.notes["log"]
