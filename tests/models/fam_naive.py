"""TransformerFAM block by block, as the paper's Algorithm 2 reads: slow, and the truth that `fam.py` is held to."""

import torch


def logits(model, ids):
    """Logits (B, T, V) for ids (B, T), one block at a time and one layer at a time."""
    config = model.config
    b, M, F = config.block_size, config.memory_segments, config.fam_length
    fam, x = [], model.prompt.expand(len(ids), F, config.d_model)  # (B, F, D)
    for layer in model.blocks:  # the prompt reads itself
        q, k, v = project(layer, layer.fam_attention, x, -F)
        x = feed_forward(layer, layer.fam_attention.out(attend(q, k, v)) + x)
        fam.append(x)
    residual = [torch.zeros_like(state) for state in fam]  # the first update adds nothing
    memory = [[] for _ in model.blocks]
    hidden = []
    for start in range(0, ids.shape[1], b):
        x = model.embedding(ids[:, start : start + b])  # (B, b, D)
        for i, layer in enumerate(model.blocks):
            q, k, v = project(layer, layer.attention, x, start)
            fam_q, fam_k, fam_v = project(layer, layer.fam_attention, fam[i], start - F)
            before_k, before_v = [fam_k] + [m[0] for m in memory[i]], [fam_v] + [m[1] for m in memory[i]]
            y = attend(q, torch.cat((*before_k, k), 2), torch.cat((*before_v, v), 2), causal=True)
            y = feed_forward(layer, layer.attention.out(y) + x)
            if x.shape[1] == b:  # a block in full: its FAM, not seen within it
                z = attend(fam_q, torch.cat((fam_k, k), 2), torch.cat((fam_v, v), 2))
                fam[i] = feed_forward(layer, layer.fam_attention.out(z) + residual[i])
                residual[i] = fam[i]
                memory[i] = (memory[i] + [(k, v)])[-M:] if M > 0 else []
            x = y
        hidden.append(x)
    return model.norm(torch.cat(hidden, 1)) @ model.embedding.weight.T


def project(layer, attention, x, first):
    """x (B, T, D) at positions first, first + 1, ... -> queries, keys, values (B, H, T, d)."""
    B, T, D = x.shape
    d = D // layer.config.n_heads
    qkv = layer.attention_norm(x) @ attention.qkv.weight.T
    q, k, v = qkv.view(B, T, 3, layer.config.n_heads, d).permute(2, 0, 3, 1, 4)
    position = torch.arange(first, first + T, dtype=x.dtype, device=x.device)[:, None]
    frequency = layer.config.rope_theta ** (-torch.arange(0, d, 2, dtype=x.dtype, device=x.device) / d)
    angle = position * frequency  # (T, d / 2)
    turn = torch.polar(torch.ones_like(angle), angle)
    return rotated(q, turn), rotated(k, turn), v


def rotated(x, turn):
    """RoPE: dimensions i and i + d/2 are the parts of a complex number, turned by the position."""
    z = torch.complex(*x.chunk(2, -1)) * turn
    return torch.cat((z.real, z.imag), -1)


def attend(q, k, v, causal=False):
    """Softmax attention of T queries to S keys -> (B, T, D); causal: the queries stand at the last T keys."""
    score = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
    if causal:
        T, S = score.shape[2:]
        later = torch.ones(T, S, dtype=torch.bool, device=q.device).triu(S - T + 1)
        score = score.masked_fill(later, float("-inf"))
    return (score.softmax(-1) @ v).transpose(1, 2).flatten(2)


def feed_forward(layer, x):
    """x + feed-forward(norm(x))."""
    return x + layer.feed_forward(layer.feed_forward_norm(x))
