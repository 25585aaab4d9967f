"""What a chapter would cost at a scale: counted on the real models without running them, then multiplied out.

A step of training is traced with fake tensors, which have shapes and no data: torch counts the operations of its
products and attention, forward and backward, and the most memory that is alive at once. What no count gives, the
share of a GPU's peak that training reaches, is an assumption that the plan states.
"""

import ast
import contextlib
import csv
import functools
import io
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.runs.execution import SCRATCH, environment
from paperwalk.runs.files import code_cells, resolve_root, tags_of
from paperwalk.runs.parameters import read_mapping

if TYPE_CHECKING:
    import pandas as pd

# Peak bfloat16 operations a second, without sparsity, and bytes of memory: the manufacturer's data sheets.
GPUS = {"A100": (312e12, 80e9), "H100": (990e12, 80e9), "H200": (990e12, 141e9)}
SAMPLING_MFU = 0.05  # of the peak, while a model writes token by token: assumed
LAUNCH_RATE = 107e3  # small operations that one thread hands to a GPU in a second: benchmarks/gpu/2026-11-26-h200
ANSWER_RATE = 30  # tokens a second that a hosted model writes of one answer: assumed
STATE_BYTES = 16  # a parameter: weight, gradient and AdamW's two moments, in float32
DEFINITIONS = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef
CHECKPOINT_BYTES = 12  # a parameter: the same without the gradient


@dataclass(frozen=True)
class Training:
    """The training of a chapter's main arm at one scale.

    build() -> the model; inputs(rows, longest) -> token ids of so many rows, of the mean length or the longest;
    `loss(model, *inputs)` -> a scalar. `rows` make an update. tokens: trained on, in all. samples: texts that a Grow
    draws; written: their tokens, over all Grows. stored: token ids of data on disk.
    """

    arm: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, bool], tuple]
    loss: Callable[..., torch.Tensor]
    steps: int
    rows: int
    tokens: float
    stored: float
    samples: int = 0
    written: float = 0
    bf16: bool = False


@dataclass(frozen=True)
class Count:
    """Of one step: operations (a product of n x k and k x m has 2 n k m), the most bytes alive, all state included, and
    calls that each start something on a GPU."""

    parameters: int
    flops: int
    peak_bytes: int
    launches: int


_aten = torch.ops.aten
ATTENTION = {  # operations of attention on a CPU, which torch's own list lacks, from the shapes of what it is given
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
FLOPS = flop_registry | {operation: shape_wrapper(count) for operation, count in ATTENTION.items()}


class Meter(TorchDispatchMode):
    """Counts the calls of torch that are made under it, and the bytes of what they make for as long as it lives.

    flops: operations of products and attention, which is counted in full, also where it is causal, as is the custom.
    launches: calls that compute: all but views and those that only make room. Each is about a launch on a GPU, where a
    fused kernel (the FAM's attention, a norm) takes the place of several. live, peak: bytes now, and the most so far.
    """

    IDLE = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "_unsafe_view", "is_same_size")

    def __init__(self):
        super().__init__()
        self.flops = self.launches = self.live = self.peak = 0
        self.known = weakref.WeakSet[torch.UntypedStorage]()

    @staticmethod
    @functools.cache
    def _facts(operation):
        """(whether its results share memory with what it is given, whether it computes, its count of operations)"""
        kind, _, name = operation._schema.name.partition("::")
        view = any(out.alias_info and not out.alias_info.is_write for out in operation._schema.returns)
        computes = kind == "aten" and not view and name not in Meter.IDLE
        return view, computes, FLOPS.get(operation._overloadpacket)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        view, computes, flops = self._facts(operation)
        self.launches += computes
        if flops:
            self.flops += flops(*args, **(kwargs or {}), out_val=made)
        if not view:
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                    self.known.add(storage)
                    self._add(storage.nbytes())
                    weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, size):
        self.live += size
        self.peak = max(self.peak, self.live)

    def restart(self) -> None:
        """Forget all counts but those of the bytes that live."""
        self.flops, self.launches, self.peak = 0, 0, self.live


@dataclass(frozen=True)
class Row:
    """One line of a plan: a figure, its unit, and how we know it."""

    quantity: str
    value: float
    unit: str
    how: str


# What a chapter says of itself


def training_of(chapter: str, values: dict, root: Path | None = None) -> Training | None:
    """The `training(v)` of the notebook's cells tagged `cost`, at these values; None where the chapter has none.

    Those cells stand for themselves: they import what they need, and only their imports and definitions are run here.
    """
    cells = [cell["source"] for cell in code_cells(runs.notebook_path(chapter, root)) if "cost" in tags_of(cell)]
    if not cells:
        return None
    tree, names = ast.parse("\n".join(cells)), dict[str, Any](__name__="__costs__")
    tree.body = [node for node in tree.body if isinstance(node, DEFINITIONS)]
    exec(compile(tree, f"{chapter}.ipynb", "exec"), names)
    return names["training"](SimpleNamespace(**values))


def table(chapter: str, training: Callable[[SimpleNamespace], Training]) -> "pd.DataFrame":
    """A row a profile: parameters, tokens trained on, GB of weights, gradients and moments, and GPU hours by the rule.

    The rule is six operations a parameter and token, at 40 % of an H100's peak.
    """
    import pandas as pd

    rows = {}
    for profile in runs.profiles(chapter):
        t = training(SimpleNamespace(**runs.profile_values(chapter, profile)))
        with torch.device("meta"):
            n = sum(parameter.numel() for parameter in t.build().parameters())
        hours = (6 * n * t.tokens / 0.4 + 2 * n * t.written / SAMPLING_MFU) / GPUS["H100"][0] / 3600
        rows[profile] = {"parameters": n, "tokens": t.tokens, "GB of state": n * STATE_BYTES / 1e9, "GPU hours": hours}
    return pd.DataFrame(rows).T.map("{:,.3g}".format)


def ids(rows: int, length: int) -> torch.Tensor:
    """Token ids to count with: zeros, (rows, length)."""
    return torch.zeros(rows, length, dtype=torch.long)


def seq2seq_loss(model: nn.Module, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of an encoder-decoder on all targets, in float32."""
    logits = model(source, target, torch.zeros(len(source), dtype=torch.long)).flatten(0, 1).float()
    return F.cross_entropy(logits, target.flatten(), reduction="none").sum()


# Counting


def count(training: Training, rows: int, longest: bool = False) -> Count:
    """Trace one step on so many rows, all at once, of the mean length or the longest; nothing is computed.

    The step is that of `paperwalk.training` on a CPU: fused AdamW, gradients set to None, autocast if the training has
    it.
    """
    with FakeTensorMode(), Meter() as meter:
        model, inputs = training.build(), training.inputs(rows, longest)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes the moments, which a first step lacks
        optimizer.zero_grad(set_to_none=True)
        meter.restart()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.bf16):
            loss = training.loss(model, *inputs)
        loss.backward()
        optimizer.step()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Count(parameters, meter.flops, meter.peak, meter.launches)


def largest_micro_batch(training: Training, room: float, guess: float = 1) -> tuple[int, int]:
    """(rows, bytes): the most of an update's rows, a power of two, whose step fits `room` bytes; 0 where none does.

    Sought from `guess` rows on: a step is traced for each size that is tried.
    """
    peak = functools.cache(lambda rows: count(training, rows, longest=True).peak_bytes)
    rows = 1
    while 2 * rows <= min(guess, training.rows):
        rows *= 2
    while rows > 1 and peak(rows) > room:
        rows //= 2
    while 2 * rows <= training.rows and peak(2 * rows) <= room:
        rows *= 2
    return (rows, peak(rows)) if peak(rows) <= room else (0, peak(1))


# Plans


def plan(
    chapter: str, profile: str, gpu: str = "H100", mfu: float = 0.4, gpus: int = 1, root: Path | None = None
) -> list[Row]:
    """The rows of a chapter's plan at a scale.

    gpu: one of GPUS. mfu: share of its peak that training reaches, above 0 and at most 1. gpus: over how many the state
    is sharded, at least 1. Raises ParameterError for these, and for a chapter or profile that is unknown or unplanned.
    """
    if gpu not in GPUS:
        raise runs.ParameterError(f"gpu = {gpu!r}: must be one of {', '.join(GPUS)}")
    if not 0 < mfu <= 1:
        raise runs.ParameterError(f"mfu = {mfu!r}: must be a number above 0 and at most 1")
    if gpus < 1:
        raise runs.ParameterError(f"gpus = {gpus!r}: must be a whole number of at least 1")
    values = runs.profile_values(chapter, profile, root)
    runs.check(chapter, values | ({"device": "auto"} if "device" in values else {}), root=root)
    if t := training_of(chapter, values, root):
        return _trained(t, gpu, mfu, gpus)
    if _cell_of_calls(chapter, root):
        return _calls(chapter, values, root)
    raise runs.ParameterError(f"chapter = {chapter!r}: must have a cell tagged `cost` or `calls` to be planned")


def _trained(t, gpu, mfu, gpus):
    peak, room = GPUS[gpu]
    one = count(t, 1)
    flops, state = one.flops * t.rows * t.steps, STATE_BYTES * one.parameters
    shared = state * (1 - 1 / gpus)  # bytes of the state that lie on the other GPUs
    lengths = [sum(x.numel() for x in t.inputs(1, longest)) for longest in (False, True)]
    guess = (room + shared - state) / (one.peak_bytes - state) * lengths[0] / lengths[1]
    rows, alive = largest_micro_batch(t, room + shared, guess)
    hours = (flops / mfu + 2 * one.parameters * t.written / SAMPLING_MFU) / peak / 3600
    out = [
        Row("parameters", one.parameters, "", "counted in the model's classes"),
        Row("steps", t.steps, "", "the profile"),
        Row("tokens", t.tokens, "", f"steps x rows x length: {t.arm}"),
        Row("FLOPs", flops, "", "counted in a traced step: products and attention, forward and backward"),
        Row(
            "launches a step",
            one.launches,
            "",
            "counted in a traced step: torch's calls that compute, in their CPU forms",
        ),
        Row(
            "hours by launches",
            one.launches * t.steps / LAUNCH_RATE / 3600,
            "h",
            f"at {LAUNCH_RATE:,.0f} a second, which one thread of an H200's machine reached with the smallest",
        ),
        Row("FLOPs by the rule", 6 * one.parameters * t.tokens, "", "six a parameter and token, for comparison"),
    ]
    if t.written:
        out.append(Row("samples a Grow", t.samples, "", "sources x samples"))
        assumed = f"in two Grows, at the length; ASSUMED: {SAMPLING_MFU:.0%} of the peak"
        out.append(Row("tokens sampled", t.written, "", assumed))
    assumed = f"ASSUMED: {mfu:.0%} of the {peak / 1e12:.0f} bfloat16 TFLOP/s of an {gpu}; on no GPU measured"
    where = "on one GPU" if gpus == 1 else f"sharded over {gpus} GPUs"
    how = f"counted: micro-batches of {rows} of {t.rows} rows, the longest; state {where}"
    if rows == 0:
        how = f"counted: ONE ROW DOES NOT FIT the {room / 1e9:.0f} GB of an {gpu}; state {where}"
    out += [
        Row("GPU-hours", hours, "h", assumed),
        Row(
            "days",
            hours / gpus / 24,
            "d",
            f"GPU-hours over {gpus}, as if sharing lost nothing; it will take longer",
        ),
        Row(
            "state a GPU",
            state / gpus / 1e9,
            "GB",
            f"weights, gradients, AdamW's moments, 16 bytes a parameter, {where}",
        ),
        Row("memory a GPU", (alive - shared) / 1e9, "GB", how),
        Row(
            "checkpoints", 2 * CHECKPOINT_BYTES * one.parameters / 1e9, "GB", "disk: 12 bytes a parameter, old and new"
        ),
        Row("data", 2 * t.stored / 1e9, "GB", "disk: token ids of two bytes each"),
    ]
    return out


def _calls(chapter, values, root):
    """A chapter that trains nothing and asks a model: its calls are drawn up, and none is made."""
    calls, read, written, price = _drawn_up_calls(chapter, tuple(sorted(values.items())), root)
    hours = written / ANSWER_RATE / values["workers"] / 3600
    counted = "counted: the notebook draws up its calls, and makes none"
    return [
        Row("calls", calls, "", counted),
        Row("tokens read", read, "", "counted: letters of the prompts over four"),
        Row("tokens written", written, "", "counted: at most, the limits of all answers"),
        Row("price", price, "", f"at most, at {values['price_in']:g} and {values['price_out']:g} a million tokens"),
        Row("hours", hours, "h", f"ASSUMED: {ANSWER_RATE} tokens a second an answer, {values['workers']} side by side"),
    ]


def _cell_of_calls(chapter, root):
    """The number of the notebook's code cell tagged `calls`, from 1; 0 where there is none."""
    cells = enumerate(code_cells(runs.notebook_path(chapter, root)), 1)
    return next((number for number, cell in cells if "calls" in tags_of(cell)), 0)


@functools.lru_cache
def _drawn_up_calls(chapter, values, root):
    """(calls, tokens read, tokens written at most, price) as the notebook's cells count them, up to the one tagged."""
    names = dict[str, Any](__name__="__costs__")
    own = {sources.VARIABLE: "", "PAPERWALK_ROOT": str(resolve_root(root))}  # an Experiment sets both: put back
    with (
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as scratch,  # not the folder of the run that is planned, which may be going on
        environment(**own, **{SCRATCH: scratch}),
    ):
        for cell in code_cells(runs.notebook_path(chapter, root))[: _cell_of_calls(chapter, root)]:
            if "report" not in tags_of(cell):
                exec(compile(cell["source"], chapter, "exec"), names)
            if "parameters" in tags_of(cell):
                names |= dict(values)
    return len(names["calls"]), sum(names["tokens"]), names["written"], names["price"]


# What the paper and the evidence say


def said(chapter: str, root: Path | None = None) -> dict[str, dict]:
    """book/<chapter>/paper_costs.yml: quantity of the plan -> {paper: number, where}; empty where there is none."""
    file = runs.notebook_path(chapter, root).with_suffix("") / "paper_costs.yml"
    return read_mapping(file) if file.exists() else {}


def measured(chapter: str, root: Path | None = None) -> list[str]:
    """A line for each scale that has committed results, superseded ones too: minutes and memory of a whole run."""
    lines = []
    for profile in runs.profiles(chapter, root):
        if results := _whole_runs(chapter, profile, root):
            minutes, memory = (mean(r.meta[key] for r in results) for key in ("wall_seconds", "peak_memory_bytes"))
            first = results[0].meta
            lines.append(
                f"{profile}: {minutes / 60:.1f} minutes and {memory / 1e9:.1f} GB, libraries and data with it, for "
                f"all arms, mean of {len(results)} seeds on {first['cores']} cores ({first['device']})"
            )
    return lines


def _whole_runs(chapter, profile, root):
    known = evidence.load(chapter, profile, root) or evidence.superseded(chapter, root)
    return [run for run in known if run.profile == profile and run.meta["complete"]]


def checks(root: Path | None = None) -> list[dict]:
    """benchmarks/results/plan.csv: measured steps beside what `count` predicts of them; empty where there is none."""
    file = resolve_root(root) / "benchmarks" / "results" / "plan.csv"
    return list(csv.DictReader(file.open(newline=""))) if file.exists() else []


def text(chapter: str, profile: str, rows: list[Row], root: Path | None = None) -> str:
    """The plan as a table, with the paper's figures beside ours, what was measured, and what is extrapolated."""
    paper = said(chapter, root)
    lines = [f"{chapter} at {profile}, one seed. Nothing was run for this."]
    lines.append(f"{'':18} {'plan':>12} {'paper':>9}  how we know")
    for row in rows:
        theirs = f"{paper[row.quantity]['paper']:.3g}" if row.quantity in paper and profile == "paper" else ""
        lines.append(f"{row.quantity:18} {f'{row.value:.3g} {row.unit}'.strip():>12} {theirs:>9}  {row.how}")
    if profile == "paper":
        lines.append("The paper:")
        lines += [f"  {name}: {entry['paper']:.3g}, {entry['where']}" for name, entry in paper.items()]
        lines.append("  On anything else, hours and memory among them, our notes of the paper have no figure.")
    lines.append("Measured:")
    lines += [f"  {line}" for line in measured(chapter, root)]
    if (known := checks(root)) and not _cell_of_calls(chapter, root):
        off = lambda kind: max(abs(float(row[f"{kind}_error"])) for row in known if row[f"{kind}_error"])
        lines.append(
            f"  {len(known)} trainings on a CPU, {known[0]['date']}: memory at most {off('memory'):.1%} off its count, "
            f"ratios of times at most {off('time'):.1%} off the ratio of operations"
        )
    if not _whole_runs(chapter, profile, root):
        lines.append("Extrapolated: all the rest. This profile has not been run.")
    return "\n".join(lines)
