"""A model, a loss, data and comparisons for the tests of training, quick enough for hundreds of steps."""

import random

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

V, D = 11, 6


class Tiny(nn.Module):
    """Embedding, norm, matrix with bias, dropout, tied head and a persistent buffer that training moves."""

    def __init__(self, seed=3, dropout=0.0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(V, D)
        self.norm = nn.LayerNorm(D)
        self.mix = nn.Linear(D, D)
        self.head = nn.Linear(D, V, bias=False)
        self.head.weight = self.embed.weight
        self.dropout = dropout
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)

    def forward(self, x):
        if self.training:
            self.seen += x.numel()
        x = nn.functional.dropout(self.mix(self.norm(self.embed(x))), self.dropout, self.training)
        return self.head(x)


def loss_fn(model, batch):
    x, y = batch  # y: -100 is not kept
    logits = model(x)
    return nn.functional.cross_entropy(logits, y, reduction="sum"), int((y != -100).sum())


def noisy_loss(model, batch):
    """Depends on all three generators, so that a resume which forgets one of them shows."""
    loss, weight = loss_fn(model, batch)
    return loss * (0.5 + np.random.rand() + random.random() + 0.1 * np.random.randn() + random.gauss(0, 0.1)), weight


def micro_batches(step, sizes=(5, 3)):
    g = torch.Generator().manual_seed(1000 + step)
    return [(torch.randint(V, (n,), generator=g), torch.randint(V, (n,), generator=g)) for n in sizes]


def tensors_of(path):
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        metadata.pop("sha256")  # over bytes whose order is not fixed
        return {name: file.get_tensor(name) for name in file.keys()}, metadata


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name
