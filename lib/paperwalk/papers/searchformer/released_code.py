"""Faults of the paper's released code, each acted out on our own data to measure what it does."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from paperwalk.kernels.astar import Sokoban, Trace
from paperwalk.models.seq2seq import Seq2Seq
from paperwalk.papers.searchformer.plans import check_plan


def entropy_ratio(logits: torch.Tensor, temperature: float) -> float:
    """Entropy of sampling where the logits (V,) are multiplied by the temperature, over that where they are divided."""
    entropy = lambda logits: -(logits.softmax(0) * logits.log_softmax(0)).sum().item()
    return entropy(logits * temperature) / entropy(logits / temperature)


def padding_shift(model: Seq2Seq, source: torch.Tensor, bos: int, pad: int, padding: int = 12) -> float:
    """By how much the first token's logits move at most when padding follows the prompt and the encoder has no mask.

    source: (1, S). Raises AssertionError where they move although the encoder has its mask.
    """
    longer = F.pad(source, (0, padding), value=pad)
    target = torch.full((1, 1), bos, device=source.device)
    with torch.no_grad():
        memory = model.encode(longer, (longer == pad).sum(1))
        masked = model.hidden(target, memory)
        torch.testing.assert_close(model.hidden(target, model.encode(source)), masked, atol=1e-5, rtol=1e-4)
        no_encoder_mask = replace(model.encode(longer), mask=memory.mask)  # cross-attention keeps its mask
        moved = model.head(model.hidden(target, no_encoder_mask)) - model.head(masked)
        return moved.abs().max().item()


def recognised(texts: Sequence[str]) -> float:
    """Share of the texts to which two processes give the same `hash`. No text may hold a "|"."""
    script = "import sys; print(*map(hash, sys.stdin.read().split('|')))"
    salted = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-c", script]
    ids_anew = lambda: subprocess.run(command, input="|".join(texts), capture_output=True, text=True, env=salted)
    first, second = (ids_anew().stdout.split() for _ in range(2))
    return float(np.mean([a == b for a, b in zip(first, second, strict=True)]))


def lenient_sokoban(board: Sokoban, cells: Iterable[tuple[int, int]]) -> bool:
    """As the released check: only the differences of cells count, and a move into a wall is no move."""
    walls, worker, boxes = set(board.walls), board.worker, set(board.boxes)
    for (x, y), (next_x, next_y) in itertools.pairwise(cells):
        step = (next_x - x, next_y - y)
        cell, beyond = ((worker[0] + n * step[0], worker[1] + n * step[1]) for n in (1, 2))
        if cell in walls or (cell in boxes and (beyond in walls or beyond in boxes)):
            continue
        boxes, worker = boxes - {cell} | ({beyond} if cell in boxes else set()), cell
    return boxes == set(board.docks)


def shifted_accepted(puzzles: Iterable[Trace]) -> float:
    """Share of Sokoban puzzles whose plan, moved one cell to the right, the released check accepts.

    Raises AssertionError where our check does not find a puzzle's own plan optimal and the moved one invalid.
    """
    accepted = []
    for puzzle in puzzles:
        assert isinstance(puzzle.layout, Sokoban)
        cells = [(int(x) + 1, int(y)) for x, y in zip(puzzle.plan[1::3], puzzle.plan[2::3])]
        moved = [token for x, y in cells for token in ("plan", str(x), str(y))]
        assert check_plan(puzzle.layout, puzzle.plan).verdict == "optimal"
        assert check_plan(puzzle.layout, moved).verdict == "invalid"
        accepted.append(lenient_sokoban(puzzle.layout, cells))
    return float(np.mean(accepted))
