"""The models of an experiment trained as one stacked model, against one after the other by `train`: a whole training of
some updates each, with what the first updates cost besides (compilation, recording)."""

import tempfile
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.harness import Contest, Unequal, run
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.fam import FAMConfig, TransformerFAM
from paperwalk.models.layers import swiglu_width
from paperwalk.training import TrainConfig, train
from paperwalk.training.stacked import train_stacked

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_GPU = DEVICE == "cuda"
MODELS, UPDATES = (8, 24) if ON_GPU else (4, 6)


def decoder(d_model, n_layers, n_heads, vocab_size, tokens):
    sizes = vocab_size, d_model, n_layers, n_heads, n_heads, swiglu_width(d_model)
    return Decoder(DecoderConfig(*sizes, tokens))


def fam(d_model, n_layers, n_heads, block_size, fam_length):
    return TransformerFAM(FAMConfig(64, d_model, n_layers, n_heads, swiglu_width(d_model), block_size, 1, fam_length))


def logits_of(model, ids):
    return model(ids) if isinstance(model, Decoder) else model(ids)[0]


def loss_fn(model, batch):
    """Cross-entropy of the kept targets, summed, and their number."""
    ids, keep = batch
    logits, keep = logits_of(model, ids)[:, :-1].float(), keep[:, 1:].flatten()
    nll = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (nll * keep).sum(), keep.sum()


def contest(name, make, sizes, vocab_size, rows, tokens):
    """Trainings of MODELS models of make(*sizes) on batches of random tokens (rows, tokens)."""
    described = ", ".join(f"{key} {value}" for key, value in sizes.items())
    case = f"{UPDATES} updates of {MODELS} models: {name}, {described}, batch {rows}, {tokens} tokens"
    configs = [TrainConfig(UPDATES, 1e-3 * (n + 1), 3, bf16=ON_GPU) for n in range(MODELS)]

    def inputs():
        g = torch.Generator().manual_seed(0)
        ids = torch.randint(vocab_size, (UPDATES, MODELS, rows, tokens), generator=g)
        return ids, torch.rand(ids.shape, generator=g) > 0.25

    def new_models():
        models = []
        for n in range(MODELS):
            torch.manual_seed(n)
            models.append(make(*sizes.values()).to(DEVICE))
        return models

    def one_by_one(ids, keep):
        losses = []
        for n, (model, config) in enumerate(zip(new_models(), configs)):
            batches = lambda step, n=n: [(ids[step, n].to(DEVICE), keep[step, n].to(DEVICE))]
            losses.append([row["loss"] for row in train(model, batches, loss_fn, config, progress=False)])
        return torch.tensor(losses)

    def stacked(ids, keep, together=MODELS):
        losses, models = [], new_models()
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / str(n) for n in range(MODELS)]
            for first in range(0, MODELS, together):
                part = slice(first, first + together)
                batches = lambda step, part=part: (ids[step, part], keep[step, part])
                train_stacked(models[part], batches, loss_fn, configs[part], files[part], progress=False)
            for model, config, file in zip(models, configs, files):
                log = train(model, lambda step: [], loss_fn, config, file, progress=False)
                losses.append([row["loss"] for row in log])
        return torch.tensor(losses)

    recorded = {"one by one, recorded": lambda ids, keep: stacked(ids, keep, 1)} if ON_GPU else {}
    ways = {"stacked": stacked} | recorded | {"train, one by one": one_by_one}
    return Contest("stacked", case, inputs, ways, check, rounds=2)


def check(name, result, reference):
    """The first loss to rounding; later ones drift apart where products are rounded to bfloat16."""
    first, later = (1e-3, 0.05) if ON_GPU else (1e-5, 1e-3)
    if not torch.allclose(result[:, 0], reference[:, 0], rtol=first) or not torch.allclose(
        result, reference, rtol=later
    ):
        raise Unequal(f"stacked: {name}: not the losses of ours")


DECODER = dict(width=256, layers=6, heads=8, vocabulary=8192, length=256)
FAM = dict(width=128, layers=2, heads=4, block=128, fam=16)
if not ON_GPU:
    DECODER |= dict(width=64, layers=2, heads=2, vocabulary=256, length=64)
    FAM |= dict(width=64, block=16, fam=4)
CONTESTS = [
    contest("decoder", decoder, DECODER, DECODER["vocabulary"], 32 if ON_GPU else 4, DECODER["length"]),
    contest("TransformerFAM", fam, FAM, 64, 32 if ON_GPU else 4, 6 * FAM["block"]),
]

if __name__ == "__main__":
    for each in CONTESTS:
        run(each)
