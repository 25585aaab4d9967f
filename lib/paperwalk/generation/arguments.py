"""Arguments of `generate`: checked, and padded into one tensor."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from paperwalk.checks import is_number, is_whole, require, require_positive, require_whole
from paperwalk.models.decoder import Decoder
from paperwalk.models.seq2seq import Seq2Seq

Method = Literal["greedy", "sample", "beam"]
METHODS = get_args(Method)
Model = Decoder | Seq2Seq
TokenIds = torch.Tensor | Sequence[torch.Tensor]  # (B, P), or B tensors of any lengths


def padded(
    prompts: TokenIds, device: torch.device, left: bool, pad: int | None, name: str = "prompts"
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, P) ids and how many of them are padding (B,) on each row's left or right (None: no padding)."""
    if isinstance(prompts, torch.Tensor):
        if prompts.dim() != 2 or 0 in prompts.shape:
            raise ValueError(f"{name} of shape {tuple(prompts.shape)}: must be (B, P), neither of them 0")
        _check_dtype(name, prompts)
        ids = prompts.to(device)
        padding = (ids == pad).flip(1).cumprod(1).sum(1) if pad is not None else torch.zeros(1)
        if (padding == ids.shape[1]).any():
            raise ValueError(f"{name} with a row of pad = {pad} alone: must have a token in each row")
        return ids, padding if padding.any() else None
    shapes = [tuple(prompt.shape) for prompt in prompts]
    if not shapes or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ValueError(f"{name} of shapes {shapes}: must be at least one 1-D tensor, none of them empty")
    for prompt in prompts:
        _check_dtype(name, prompt)
    P = max(map(len, prompts))
    counts = [P - len(prompt) for prompt in prompts]
    here = prompts[0].device  # one transfer for all rows: on a GPU that others use too, each waits for its turn
    ids = torch.stack([F.pad(row.to(here), (n, 0) if left else (0, n)) for row, n in zip(prompts, counts)])
    return ids.to(device), torch.tensor(counts, device=device) if any(counts) else None


def _check_dtype(name, ids):
    if ids.dtype != torch.long:
        raise ValueError(f"{name} of dtype {ids.dtype}: must be torch.int64 token ids")


def check_range(name: str, ids: torch.Tensor, vocab_size: int) -> None:
    low, high = torch.stack(ids.aminmax()).tolist()
    require(name, (low, high), 0 <= low and high < vocab_size, f"ids from 0 to {vocab_size - 1}")


def check_ends(model: Model, bos: int | None, pad: int | None) -> None:
    if isinstance(model, Seq2Seq):
        last = model.config.vocab_size - 1
        require("bos", bos, is_whole(bos, 0, last), f"a token id from 0 to {last}")
        require("pad", pad, pad is None or is_whole(pad, 0, last), f"None or a token id from 0 to {last}")
    else:
        for name, value in (("bos", bos), ("pad", pad)):
            require(name, value, value is None, "None: only a Seq2Seq uses it")


def check(
    model: Model,
    prompts: torch.Tensor,
    n: int,
    method: Method,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    beams: int,
    samples: int,
    eos: int | None,
    generator: torch.Generator | None,
    length_penalty: float,
) -> None:
    config, P = model.config, prompts.shape[1]
    V, limit = config.vocab_size, config.max_positions
    check_range("prompts", prompts, V)
    require("prompts", f"{P} tokens", P <= limit, f"at most {limit} tokens long")
    room, fits = limit - P + 1, f"(max_positions = {limit}, longest prompt {P})"
    if isinstance(model, Seq2Seq):
        room, fits = limit, f"(max_positions = {limit})"
    require("max_new_tokens", n, is_whole(n, 1, room), f"a whole number from 1 to {room} {fits}")
    require("method", method, method in METHODS, f"one of {', '.join(METHODS)}")
    require_positive(temperature=temperature)
    require("top_k", top_k, top_k is None or is_whole(top_k, 1, V), f"None or a whole number from 1 to {V}")
    require("top_p", top_p, top_p is None or (is_number(top_p) and 0 < top_p <= 1), "None or above 0, at most 1")
    require_whole(1, beams=beams, samples=samples)
    require("length_penalty", length_penalty, is_number(length_penalty), "a finite number")
    require("eos", eos, eos is None or is_whole(eos, 0, V - 1), f"None or a token id from 0 to {V - 1}")
    device = model.lm_head.device
    same = generator is None or generator.device.type == device.type
    require("generator", generator and str(generator.device), same, f"None or on the model's device, {device}")
    for name, value, default, used_by in (
        ("temperature", temperature, 1.0, "sample"),
        ("top_k", top_k, None, "sample"),
        ("top_p", top_p, None, "sample"),
        ("samples", samples, 1, "sample"),
        ("beams", beams, 1, "beam"),
        ("length_penalty", length_penalty, 0.0, "beam"),
    ):
        ignored = value != default and method != used_by
        require(name, value, not ignored, f"{default} with method {method!r}: only {used_by!r} uses it")
