"""Beam search."""

import math

import torch

from paperwalk.generation.prefixes import Prefixes


def beam_search(
    prefixes: Prefixes, max_new_tokens: int, beams: int, eos: int | None, length_penalty: float
) -> torch.Tensor:
    """Tokens (B, n) of the best beam of each prompt. An ended beam keeps its place and its score while it is
    among the best; it is filled up with eos."""
    B, V = prefixes.logits.shape
    device = prefixes.logits.device
    first = torch.arange(B, device=device)[:, None] * beams  # (B, 1), row of each prompt's beam 0
    prefixes.reorder(torch.arange(B, device=device).repeat_interleave(beams))
    score = torch.full((B, beams), -math.inf, device=device, dtype=torch.float64)
    score[:, 0] = 0  # the beams start as copies: let one of them have children
    length = torch.zeros(B, beams, device=device, dtype=torch.long)
    ended = torch.zeros(B, beams, device=device, dtype=torch.bool)
    tokens = torch.empty(B, beams, 0, device=device, dtype=torch.long)
    while True:
        step = prefixes.logits.double().log_softmax(-1).view(B, beams, V)
        if eos is not None:
            step.masked_fill_(ended[..., None], -math.inf)
            step[..., eos].masked_fill_(ended, 0)
        length = length + ~ended
        total = score[..., None] + step  # (B, beams, V)
        best = (total / length[..., None] ** length_penalty).flatten(1).topk(beams).indices  # (B, beams)
        score = total.flatten(1).gather(1, best)
        parent, token = best // V, best % V
        tokens = torch.cat((tokens.take_along_dim(parent[..., None], 1), token[..., None]), -1)
        length, ended = length.gather(1, parent), ended.gather(1, parent)
        if eos is not None:
            ended = ended | (token == eos)
        n = tokens.shape[-1]
        if n == max_new_tokens or (eos is not None and prefixes.is_check_due(n) and ended.all()):
            return tokens[:, 0]
        prefixes.reorder((first + parent).flatten())
        prefixes.append(token.flatten())
