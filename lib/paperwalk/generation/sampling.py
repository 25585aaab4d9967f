"""Choosing tokens from logits, and drawing continuations one token at a time."""

import collections
import math
from collections.abc import Callable
from typing import Any

import torch

from paperwalk.generation import prefixes as growing


def choose_greedy(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row: (R, V) -> (R,)."""
    return logits.argmax(-1)


def choose_sample(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    uniform: torch.Tensor | None = None,
) -> torch.Tensor:
    """A token drawn from softmax(logits / temperature), truncated: (R, V) -> (R,).

    uniform: float64 (R,), the draws, each in [0, 1): row r takes the first token whose cumulated probability
    exceeds uniform[r]. None: drawn here.
    """
    if uniform is None:
        uniform = torch.rand(len(logits), dtype=torch.float64, device=logits.device)
    logits = logits.float()
    if temperature != 1:
        logits = logits / temperature
    probability = truncate(logits, top_k, top_p).softmax(-1)
    cumulated = probability.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True).squeeze(-1)


def truncate(logits: torch.Tensor, top_k: int | None = None, top_p: float | None = None) -> torch.Tensor:
    """logits (R, V) with -inf outside the top_k largest, and outside the smallest set of likeliest tokens
    whose probability (among those that top_k left) reaches top_p (Holtzman et al. 2020, section 3.1)."""
    if top_k is None and top_p is None:
        return logits
    value, order = logits.sort(-1, descending=True)
    if top_k is not None:
        value[:, top_k:] = -math.inf
    if top_p is not None and top_p < 1:
        probability = value.softmax(-1)
        before = probability.cumsum(-1) - probability  # (R, V), mass of the likelier tokens
        value = value.masked_fill(before >= top_p, -math.inf)
    return logits.scatter(-1, order, value)


class Draws:
    """Uniform numbers from 0 to 1, float64 (rows,), drawn at each step."""

    def __init__(self, rows: int, device: torch.device, generator: torch.Generator | None):
        self.options: dict[str, Any] = dict(size=(rows,), dtype=torch.float64, device=device, generator=generator)
        default = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        self.generator = generator or default
        self.states: collections.deque[torch.Tensor]  # before each of the last steps
        self.states = collections.deque(maxlen=growing.RECORDED_CHECK_STEP)

    def __call__(self) -> torch.Tensor:
        self.states.append(self.generator.get_state())
        return torch.rand(**self.options)

    def give_back(self, steps: int) -> None:
        """Put the generator back to where it stood before the last `steps` draws, at most RECORDED_CHECK_STEP."""
        if steps and self.states:
            self.generator.set_state(self.states[-steps])


def one_by_one(
    prefixes: growing.Prefixes,
    max_new_tokens: int,
    samples: int,
    eos: int | None,
    choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Tokens (B * samples, n) picked by choose(logits, rows) from the logits of these rows, until n =
    max_new_tokens or all rows are known to have met eos. What follows a row's eos is to be cut."""
    B, device = len(prefixes.logits), prefixes.logits.device
    grid = torch.arange(B * samples, device=device).view(B, samples)  # the rows now in the batch, a line a prompt
    if samples > 1:
        prefixes.reorder(torch.arange(B, device=device).repeat_interleave(samples))
    tokens = torch.empty(B * samples, max_new_tokens, device=device, dtype=torch.long)
    ended = torch.zeros(B * samples, device=device, dtype=torch.bool)
    for n in range(max_new_tokens):
        rows = grid.flatten()
        chosen = choose(prefixes.logits, rows)
        tokens[rows, n] = chosen
        if n + 1 == max_new_tokens:
            break
        if eos is not None:
            ended[rows] |= chosen == eos
            if prefixes.is_check_due(n + 1):
                live = len(ended) - int(ended.sum())
                if live == 0:
                    return tokens[:, : n + 1]
                share = 1 if prefixes.must_record else prefixes.compact_at
                if live < len(rows) and live <= share * len(rows):
                    grid, kept = _compact(prefixes, grid, ended, share)
                    chosen = chosen[kept]
        prefixes.append(chosen)
    return tokens


def _compact(prefixes, grid, ended, share):
    """Let ended rows leave the batch -> the new grid and the places that its rows had in the batch. None leave if more
    than this share of the rows would stay.

    As long as it pays, every prompt that stays keeps equally many rows, which share what is kept of it, and some
    ended rows stay with them; then each row gets a copy of its own and is a prompt by itself.
    """
    B, N = grid.shape
    live = ~ended[grid]  # (B, N)
    prompts = live.any(1).nonzero().squeeze(1)
    width = int(live.sum(1).max())
    order = live[prompts].int().argsort(dim=1, descending=True, stable=True)[:, :width]  # live rows first
    kept = (prompts[:, None] * N + order).flatten()
    if N > 1 and prefixes.should_part(int(live.sum()), len(kept), len(prompts)):
        prompts, width = live.nonzero()[:, 0], 1
        kept = live.flatten().nonzero().squeeze(1)
    if len(kept) < grid.numel() and len(kept) <= share * grid.numel():
        prefixes.reorder(kept, prompts)
        return grid.flatten()[kept].view(-1, width), kept
    return grid, torch.arange(B * N, device=grid.device)


def lengths_of(tokens: torch.Tensor, eos: int | None) -> list[int]:
    """How long each row of tokens (R, n) is up to and with its first eos: R whole numbers."""
    R, n = tokens.shape
    if eos is None:
        return [n] * R
    is_end = tokens == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1) + 1, n).tolist()
