"""Time and memory of a stream that is read on and on."""

import time

import numpy as np
import psutil
import torch

from paperwalk.models.fam import TransformerFAM
from paperwalk.timing import wait_for


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
