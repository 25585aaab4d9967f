"""Models of one shape, each on data of its own, trained as one stacked model: as many launches for all as for one."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from paperwalk.checks import require
from paperwalk.profiling import phase
from paperwalk.training import checkpoints
from paperwalk.training.checkpoints import TrainingError
from paperwalk.training.loop import (
    TrainConfig,
    identity_of,
    lr_at,
    memory_named,
    random_state,
    seed_all,
    set_random_state,
    state_of,
    undisturbed,
)

FETCHED = 50  # steps whose figures wait on the device, so that it need not wait for the host
SAME = ("steps", "betas", "bf16", "checkpoint_every")  # settings that all models share
BEFORE_RECORDING = 3  # steps taken as they come, so that what is recorded has its memory and its kernels


def train_stacked(
    models: Sequence[nn.Module],
    batches: Callable[[int], Sequence[torch.Tensor]],
    loss_fn: Callable[[nn.Module, Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]],
    configs: Sequence[TrainConfig],
    files: Sequence[Path],
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    labels: Sequence[str] = (),
    progress: bool = True,
) -> None:
    """Train `models` in place as `train` would one after the other, and leave what it leaves at `files`: called with
    the same model, config, label and file, `train` finds a finished run, whose log it returns.

    models: A modules of one architecture and dtype, on one device. configs: one a model; steps, betas, bf16 and
    checkpoint_every must be the same for all. batches(step): tensors whose first dimension is A, one micro-batch for
    each model, on any device, of the same shapes at every step. loss_fn(model, batch): as for `train`, with the batch
    of one model; it runs under `torch.func.vmap` and, on a GPU, is recorded: no `.item()`, no shape that depends on
    values, no random numbers, nothing that is computed on the host. evaluate: as for `train`, one model at a time.
    labels: of the runs, one a model.

    On a GPU the updates after the first few are replays of one recorded CUDA graph. On a CPU, where launches cost next
    to nothing, nothing is won. After a kill the run goes on from the last checkpoint, which lies beside the first file.

    Raises ValueError for models, configs or batches that do not fit each other, and TrainingError as `train` does;
    where a loss or gradient is not finite, that model's weights stay as before the step.
    """
    labels = labels or [""] * len(models)
    _check(models, configs, files, labels)
    if _finished(models, configs, files, labels):
        return
    stack, figures = _Stack(models, loss_fn, configs), {}
    unfinished = Path(files[0]).with_name(f"{Path(files[0]).name}.stacked")
    of_each = map(identity_of, models, configs, labels)
    identity = {f"{n} {name}": value for n, each in enumerate(of_each) for name, value in each.items()}
    checkpoints.prepare(unfinished)
    seed_all(configs[0].seed)  # for what batches draws
    saved, done, device = checkpoints.load(unfinished, identity), 0, stack.weights.device
    if saved is not None:
        saved.read_into(stack.state)
        done, figures = saved.notes["step"], saved.notes["figures"]
        set_random_state(saved.notes["random"], device)
    steps, every = configs[0].steps, configs[0].checkpoint_every
    bar = tqdm(range(done, steps), desc="stacked", total=steps, initial=done, mininterval=0.5, disable=not progress)
    for step in bar:
        with phase("data"):
            batch = batches(step)
        with memory_named(f"step {step}", lambda: "the number of models, or the rows or the length of a batch"):
            stack.update(batch)
        last, due = step + 1 == steps, every and (step + 1) % every == 0
        evaluated = evaluate is not None and (last or (evaluate_every and (step + 1) % evaluate_every == 0))
        if last or due or evaluated or (step + 1) % FETCHED == 0:
            stack.raise_if_not_finite(labels)
        if evaluated:
            stack.put_back(models)
            with phase("evaluation"):
                figures[str(step)] = [_figures(evaluate, model) for model in models]
        if due and not last:
            notes = {"identity": identity, "step": step + 1, "figures": figures, "random": random_state(device)}
            checkpoints.save(unfinished, stack.state, notes)
    stack.put_back(models)
    stack.leave(models, configs, files, labels, figures)
    for leftover in unfinished.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()


def _finished(models, configs, files, labels):
    """Whether the files are of these runs, and all at their end; the models then have the weights."""
    found = []
    for model, config, file, label in zip(models, configs, files, labels):
        saved = checkpoints.load(Path(file), identity_of(model, config, label))
        if saved is None or saved.notes["step"] < config.steps:
            return False
        found.append(saved)
    for model, saved in zip(models, found):
        saved.read_into(state_of(model, {p: {} for p in model.parameters()}, dict(_trained(model))))
    return True


def _figures(evaluate, model):
    with undisturbed(model, next(model.parameters()).device):
        return {name: float(value) for name, value in evaluate(model).items()}


def _check(models, configs, files, labels):
    require("models", len(models), len(models) > 0, "at least one")
    for name, given in (("configs", configs), ("files", files), ("labels", labels)):
        require(name, len(given), len(given) == len(models), f"one for each of the {len(models)} models")
    for name in SAME:
        values = {getattr(config, name) for config in configs}
        require(name, sorted(map(str, values)), len(values) == 1, "the same in all configs")
    described = [[(name, tuple(p.shape), p.dtype, p.device) for name, p in _trained(model)] for model in models]
    for n, each in enumerate(described):
        require(f"models[{n}]", each[:1], each == described[0], "of the same parameters as models[0]")


def _trained(model):
    """The trained parameters by name, those that decay first."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return sorted(named, key=lambda pair: pair[1].ndim < 2)


class _Loss(nn.Module):
    """The loss as a module, so that `functional_call` can exchange the model's parameters within it."""

    def __init__(self, model, loss_fn):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, *batch):
        return self.loss_fn(self.model, batch)


class _Stack:
    """All trained parameters in one matrix, a row a model, with AdamW's moments and the log beside it."""

    def __init__(self, models, loss_fn, configs):
        config, A = configs[0], len(models)
        named = _trained(models[0])
        self.names, self.shapes = [name for name, _ in named], [p.shape for _, p in named]
        self.sizes = [p.numel() for _, p in named]
        rows = [torch.cat([p.detach().flatten() for _, p in _trained(model)]) for model in models]
        self.weights = torch.stack(rows).requires_grad_()  # (A, P)
        new = lambda *shape: torch.zeros(shape, dtype=self.weights.dtype, device=self.weights.device)
        column = lambda values: torch.tensor(values, dtype=torch.float64).to(self.weights).view(A, 1)
        self.first, self.second, self.taken = new(A, sum(self.sizes)), new(A, sum(self.sizes)), new(A, 1)
        self.log = torch.zeros(config.steps, 3, A, dtype=torch.float64, device=self.weights.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.weights.device)  # the step
        matrices = torch.cat([new(n) + (len(shape) >= 2) for n, shape in zip(self.sizes, self.shapes)])
        self.decay = column([each.weight_decay for each in configs]) * matrices  # (A, P)
        rates = [[lr_at(step, each) for each in configs] for step in range(config.steps)]
        self.rates = torch.tensor(rates, dtype=torch.float64).to(self.weights)  # (steps, A)
        self.clip, self.betas = column([each.clip for each in configs]), config.betas
        self.bf16, self.loss = config.bf16, _Loss(models[0].train(), loss_fn)
        self.replay: Callable[[list[torch.Tensor]], None] | None = None
        self.eager = self.checked = 0
        self.state = {"weights": self.weights, "first": self.first, "second": self.second, "taken": self.taken}
        self.state |= {"log": self.log, "at": self.at}

    def update(self, batch):
        """One update of all models; on a GPU, once its memory is settled, a replay."""
        batch = [each.to(self.weights.device, non_blocking=True) for each in batch]
        if self.replay is None and self.weights.is_cuda and self.eager == BEFORE_RECORDING:
            self.replay = self._recorded([each.clone() for each in batch])
        if self.replay is None:
            self.eager += 1
            self._update(batch)
        else:
            self.replay(batch)

    def _recorded(self, inputs):
        """A function of a batch that replays an update, recorded on these inputs."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update(inputs)

        def replay(batch):
            for kept, each in zip(inputs, batch, strict=True):
                kept.copy_(each)
            graph.replay()

        return replay

    def _update(self, batch):
        """Forward, backward and AdamW, without a word from the host."""
        device = self.weights.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            if len(self.weights) == 1:
                losses, kept = self._of_one(self.weights[0], *(each[0] for each in batch))
            else:
                losses, kept = vmap(self._of_one)(self.weights, *batch)
        (grad,) = torch.autograd.grad(losses.sum(), self.weights)
        with torch.no_grad():
            kept = kept.to(grad).view(-1, 1)
            count = kept.clamp(min=1)
            norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True) / count  # before clipping
            loss = losses.detach().view(-1, 1) / count
            fine = (kept > 0) & loss.isfinite() & norm.isfinite()  # else nothing of that model changes
            grad = torch.where(fine, grad * ((self.clip / norm).clamp(max=1) / count), 0)
            fine = fine.to(grad)
            lr, (one, two) = self.rates[self.at].view(-1, 1) * fine, self.betas
            self.taken += fine
            self.first.lerp_(grad, (1 - one) * fine)
            self.second.lerp_(grad.square(), (1 - two) * fine)
            denominator = (self.second / (1 - two**self.taken)).sqrt() + 1e-8
            self.weights.mul_(1 - lr * self.decay)
            self.weights.sub_(lr * (self.first / (1 - one**self.taken)) / denominator)
            self.log.index_copy_(0, self.at, torch.stack((loss, norm, kept)).double().view(1, 3, -1))
            self.at += 1

    def _of_one(self, weights, *batch):
        """Loss and number of kept targets of one model: its weights (P,)."""
        parts = zip(self.names, weights.split(self.sizes), self.shapes)
        loss, kept = functional_call(self.loss, {f"model.{n}": part.view(shape) for n, part, shape in parts}, batch)
        return loss, torch.as_tensor(kept)

    def raise_if_not_finite(self, labels):
        """Of the steps taken since the last call. Waits for the device."""
        steps = int(self.at)
        for step, figures in enumerate(self.log[self.checked : steps].tolist(), self.checked):
            for label, loss, norm, kept in zip(labels, *figures):
                if kept and not (math.isfinite(loss) and math.isfinite(norm)):
                    said = f"the loss is {loss} and the norm of its gradient {norm}; both must be finite"
                    raise TrainingError(f"{label}: step {step}: {said}")
        self.checked = steps

    def put_back(self, models):
        """The weights into the models."""
        with torch.no_grad():
            for model, row in zip(models, self.weights):
                for (_, p), part in zip(_trained(model), row.split(self.sizes)):
                    p.copy_(part.view(p.shape))

    def leave(self, models, configs, files, labels, figures):
        """Write for each model what `train` writes at its end."""
        log = self.log.cpu()
        for n, (model, config, file, label) in enumerate(zip(models, configs, files, labels)):
            named, moments = dict(_trained(model)), {}
            first_of, second_of = self.first[n].split(self.sizes), self.second[n].split(self.sizes)
            for p, first, second in zip(named.values(), first_of, second_of):
                moments[p] = {"exp_avg": first.view(p.shape), "exp_avg_sq": second.view(p.shape)}
                moments[p] |= {"step": self.taken[n].float().view(()).clone()}
            notes = {"identity": identity_of(model, config, label), "step": config.steps, "random": []}
            notes["log"] = _rows(log[:, :, n].tolist(), config, {int(at): each[n] for at, each in figures.items()})
            checkpoints.prepare(Path(file))
            checkpoints.save(Path(file), state_of(model, moments, named), notes)


def _rows(log, config, figures):
    """The log as `train` gives it, from [loss, norm of the gradient, kept] of each step, and figures of some steps."""
    rows, supervised = [], 0
    for step, (loss, norm, kept) in enumerate(log):
        supervised += int(kept)
        row = dict(step=step, loss=loss, lr=lr_at(step, config), grad_norm=norm, kept=int(kept), supervised=supervised)
        rows.append(row | ({} if kept else {"loss": None, "grad_norm": None}) | figures.get(step, {}))
    return rows
