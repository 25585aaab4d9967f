"""Small models to stack, their settings and their data."""

import math
import os

import torch
from torch.nn import functional as F

from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.fam import FAMConfig, TransformerFAM
from paperwalk.training import TrainConfig
from paperwalk.training.stacked import train_stacked

A, V = 3, 20
CONFIGS = [  # one a model; different in all that may differ
    TrainConfig(12, 1e-2, 3, checkpoint_every=5),
    TrainConfig(12, 3e-3, 0, min_lr_ratio=0.5, weight_decay=0.0, clip=0.5, checkpoint_every=5),
    TrainConfig(12, 1e-3, 12, weight_decay=0.3, clip=math.inf, checkpoint_every=5),
]
SHAPES = {
    "decoder": lambda: Decoder(DecoderConfig(V, 16, 2, 2, 1, 24, 24)),
    "untied": lambda: Decoder(DecoderConfig(V, 16, 1, 2, 2, 24, 24, tie_embeddings=False)),
    "fam": lambda: TransformerFAM(FAMConfig(V, 16, 2, 2, 24, block_size=4, memory_segments=1, fam_length=2)),
}


def new_models(shape="decoder", dtype=torch.float64, device="cpu"):
    models = []
    for n in range(A):
        torch.manual_seed(n)
        models.append(SHAPES[shape]().to(device, dtype))
    return models


def batches(step):
    """Ids and what is kept of them, (A, 4, 18); in step 3 nothing of the second model's."""
    g = torch.Generator().manual_seed(step)
    ids, keep = torch.randint(V, (A, 4, 18), generator=g), torch.rand(A, 4, 18, generator=g) > 0.3
    keep[1] &= step != 3
    return ids, keep


def drawn(step):
    """Batches of which a part is drawn anew, from torch's generator, as a random mask is."""
    ids, keep = batches(step)
    return ids, keep & (torch.rand(keep.shape) > 0.2)


def of_one(n, batches=batches, device="cpu"):
    return lambda step: [tuple(each[n].to(device) for each in batches(step))]


def loss_fn(model, batch):
    ids, keep = batch
    logits = model(ids)
    logits = logits[0] if isinstance(logits, tuple) else logits
    nll = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    keep = keep[:, 1:].flatten()
    return (nll * keep).sum(), keep.sum()


def labelled(folder):
    return [folder / f"{n}.safetensors" for n in range(A)], [f"run {n}" for n in range(A)]


def killed_at(step, folder):
    """Trains in a process that ends without a word when it wants the batch of a step."""

    def deadly(at):
        if at == step:
            os._exit(9)
        return drawn(at)

    files, labels = labelled(folder)
    train_stacked(new_models(), deadly, loss_fn, CONFIGS, files, labels=labels, progress=False)
