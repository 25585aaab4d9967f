"""How much memory a computation would take: its operations run on tensors without content, whose bytes are added up."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from paperwalk.costs import Meter
from paperwalk.generation import prefixes


@contextmanager
def metered():
    """Tensors made under it have no content; gives the `Meter`. What kernels take for themselves is not counted."""
    stay = patch.object(nn.Module, "to", lambda model, *_: model)  # weights without content cannot move
    with stay, FakeTensorMode(), Meter() as meter:
        yield meter


def of_training(new_model, loss_of, bf16):
    """Peak of an optimiser step in bytes: weights, gradients, AdamW's moments, and what backward needs."""
    with metered() as meter:
        model = new_model().train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(model)
        loss.backward()
    return meter.peak + 2 * 4 * sum(p.numel() for p in model.parameters())


def of_reading(new_model, read):
    """Peak of read(model), without gradients."""
    with metered() as meter, torch.no_grad():
        read(new_model().eval())
    return meter.peak


def of_generation(config, rows, prompt, new, lengths=None):
    """Peak of a `generate` of float32 in bytes: the cache while it grows or loses rows, and the logits.

    config: of the model, with n_layers, n_kv_heads, head_dim and vocab_size. rows: prompts times samples or beams.
    prompt, new: tokens that are read first and then at most added. lengths: of continuations, as many as one likes, by
    whose shares rows end and leave; None: no row ends.
    """
    per_token = 2 * 4 * config.n_layers * config.n_kv_heads * config.head_dim
    choosing = 32 * config.vocab_size  # a row's logits, probabilities and their float64 sums, and a copy of each
    lengths = torch.as_tensor([new] if lengths is None else lengths)
    longest, most, kept = prompt + new, 0, rows
    capacity = min(prompt + prefixes.RECORDED_CACHE_STEP, longest)
    while True:
        most = max(most, kept * (1.5 * capacity * per_token + choosing))  # keys are copied, then values
        if capacity >= longest or kept == 0:
            return most
        live = rows * (lengths > capacity - prompt).double().mean().item()
        kept = live if live <= prefixes.RECORDED_COMPACT_AT * kept else kept
        capacity = min(longest, capacity + max(prefixes.RECORDED_CACHE_STEP, capacity // 4))
