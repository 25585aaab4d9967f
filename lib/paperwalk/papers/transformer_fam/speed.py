"""Time and memory: of training steps beside each other, and of a stream that is read on and on."""

import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.models.fam import TransformerFAM
from paperwalk.timing import wait_for

Logits = Callable[[nn.Module, torch.Tensor], torch.Tensor]  # model, ids (B, T) -> logits (B, T, V)


def training_step(model: nn.Module, ids: torch.Tensor, logits_of: Logits) -> Callable[[], None]:
    """A step that computes the gradients of the next-token loss on ids (B, T), and changes no weight."""

    def step() -> None:
        model.zero_grad()
        logits = logits_of(model, ids)
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()

    return step


def bytes_kept(model: nn.Module, ids: torch.Tensor, logits_of: Logits) -> int:
    """What a forward pass keeps for the backward pass, weights aside."""
    kept, weights = {}, {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_of(model, ids).sum()
    return sum(size for place, size in kept.items() if place not in weights)


def memory_taken(device: torch.device) -> float:
    """MB: on a GPU those of its own that torch has taken, else those of this process."""
    wait_for(device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6


def stream(model: TransformerFAM, tokens: int, chunk: int, g: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Seconds for the tokens read so far after each of ten parts, and the memory taken in MB at each; both (10,).

    The model, of 256 tokens or more, reads random bytes, a chunk at a time.
    """
    device = model.embedding.weight.device
    state, taken, memory, start = None, [], [], time.perf_counter()
    with torch.inference_mode():
        for _ in range(10):
            for _ in range(tokens // 10 // chunk):
                ids = torch.randint(256, (1, chunk), generator=g).to(device)
                state = model.hidden(ids, state)[1]
            memory.append(memory_taken(device))  # waits for the device
            taken.append(time.perf_counter() - start)
    return np.array(taken), np.array(memory)


def of_stream(taken: np.ndarray, memory: np.ndarray, tokens: int) -> dict[tuple[str, str], float]:
    """Of a `stream` of so many tokens: how straight its line is, MB gained after the second part, and speed."""
    parts = np.arange(1, len(taken) + 1)
    off = taken - np.polyval(np.polyfit(parts, taken, 1), parts)
    return {
        ("r_squared", "stream"): 1 - off.var() / taken.var(),
        ("memory_growth", "stream"): memory[-1] - memory[1],
        ("seconds_a_million", "stream"): taken[-1] / tokens * 1e6,
    }
