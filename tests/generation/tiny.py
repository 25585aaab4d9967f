"""Small models for the tests of generation, and what is asked of them."""

import math

import torch

from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig

V, BOS, EOS = 11, 1, 0
METHODS = {
    "greedy": dict(method="greedy"),
    "sample": dict(method="sample", temperature=1.3, top_k=7, top_p=0.9),
    "samples": dict(method="sample", samples=5),
    "beam": dict(method="beam", beams=3),
    "beam, normalised": dict(method="beam", beams=4, length_penalty=1.0),
}


def decoder(seed=0, vocab_size=V, max_positions=40, scale=1.5):
    return lively(Decoder(DecoderConfig(vocab_size, 16, 2, 4, 2, 24, max_positions, tie_embeddings=False)), seed, scale)


def seq2seq(seed=0, vocab_size=V, max_positions=40, scale=1.5):
    return lively(Seq2Seq(Seq2SeqConfig(vocab_size, 16, 2, 4, 24, max_positions)), seed, scale)


def lively(model, seed, scale):
    """In float64, with such weights that continuations neither repeat at once nor tie.

    The smaller scale, the flatter the softmax, and the more often greedy search is misled."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.double().parameters():
            if weight.dim() == 2:
                weight.normal_(std=scale / math.sqrt(weight.shape[-1]))
    return model


def prompts_of(lengths, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(V, (n,), generator=g) for n in lengths]


def lists(rows):
    return [row.tolist() for row in rows]


def draws(seed=5, device="cpu"):
    return torch.Generator(device).manual_seed(seed)
