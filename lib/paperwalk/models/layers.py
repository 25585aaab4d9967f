"""Building blocks of the Transformers in this book: rotary positions, attention, SwiGLU, a block.

Normalisation is `torch.nn.RMSNorm` (Zhang & Sennrich 2019). No layer here has a bias.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.checks import require
from paperwalk.kernels.attention import attend


def rope_table(length: int, head_dim: int, theta: float = 10000.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and signed sines of rotary positions 0..length-1 (Su et al. 2021, eq. 34).

    Dimension i is paired with i + head_dim/2 (the layout of GPT-NeoX and of Hugging Face's Llama); the pair
    turns by position * theta^(-2i/head_dim) radians. Returns two float32 tensors (length, head_dim); the
    first half of the sines is negated, ready for `rotate`.
    """
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (head_dim/2,)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)  # (length, head_dim/2)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), -1).float(), torch.cat((-sin, sin), -1).float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn x (..., T, H, head_dim) by its positions; cos and sin (..., T, 1, head_dim) from `rope_table`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions (Ainslie et al. 2023).

    n_heads query heads share n_kv_heads key and value heads: query head i reads head
    i // (n_heads / n_kv_heads).
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, head_dim: int):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * head_dim, bias=False)
        self.out = nn.Linear(n_heads * head_dim, d_model, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        causal: bool = False,
        store: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """x (B, T, D) -> (B, T, D).

        mask: bool, broadcastable to (B, n_heads, T, S), true where a query may read a key; causal: the usual
        triangle instead of a mask. store(k, v), when given, keeps the new keys and values
        (B, n_kv_heads, T, head_dim) and returns all S that the queries read (see `KVCache`).
        """
        heads = self.qkv(x).view(*x.shape[:2], -1, self.head_dim)  # (B, T, n_heads + 2 n_kv_heads, head_dim)
        qk, v = heads.split_with_sizes((self.n_heads + self.n_kv_heads, self.n_kv_heads), 2)
        qk = rotate(qk, cos.to(qk.dtype), sin.to(qk.dtype))
        q, k = qk.split_with_sizes((self.n_heads, self.n_kv_heads), 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, head_dim)
        if store is not None:
            k, v = store(k, v)  # (B, n_kv_heads, S, head_dim)
        y = attend(q, k, v, mask, causal, self.n_heads != self.n_kv_heads)
        return self.out(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of one sequence to another, without positions (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int):
        super().__init__()
        self.n_heads, self.head_dim = n_heads, head_dim
        self.q = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.kv = nn.Linear(d_model, 2 * n_heads * head_dim, bias=False)
        self.out = nn.Linear(n_heads * head_dim, d_model, bias=False)

    def keys_values(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The states (B, S, D) to be read -> k and v, each (B, n_heads, S, head_dim)."""
        heads = self.kv(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, 2 n_heads, S, head_dim)
        return heads.contiguous().chunk(2, 1)  # read at every step of a generation: twice as fast in one piece

    def forward(
        self, x: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (R, T, D) -> (R, T, D), reading k and v (B, n_heads, S, head_dim) of `keys_values`.

        R is a multiple of B: rows b R/B to (b + 1) R/B - 1 of x read row b of k and v, which is not copied for
        them. mask: bool, broadcastable to (B, 1, 1, S), true where a key may be read.
        """
        q = self.q(x).view(len(k), -1, self.n_heads, self.head_dim).transpose(1, 2)  # (B, n_heads, R/B T, head_dim)
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class SwiGLU(nn.Module):
    """Gated feed-forward layer: down(silu(gate x) * up x) (Shazeer 2020, eq. 6)."""

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, head_dim: int, d_ff: int, norm_eps: float):
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, norm_eps)
        self.attention = Attention(d_model, n_heads, n_kv_heads, head_dim)
        self.feed_forward_norm = nn.RMSNorm(d_model, norm_eps)
        self.feed_forward = SwiGLU(d_model, d_ff)

    def forward(self, x: torch.Tensor, **attention: Any) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), **attention)
        return x + self.feed_forward(self.feed_forward_norm(x))


def require_even_heads(d_model: int, n_heads: int) -> None:
    """Raises ValueError unless d_model splits into n_heads heads of an even width: rotary positions turn pairs."""
    even = d_model % (2 * n_heads) == 0
    require("n_heads", n_heads, even, f"half of d_model = {d_model} or a divisor of that half (heads turn pairs)")


def swiglu_width(d_model: int, round_up: bool = False) -> int:
    """d_ff of a SwiGLU with about the weights of a plain layer of 4 d_model: 8/3 d_model to a multiple of 16."""
    return -(-8 * d_model // 3 // 16) * 16 if round_up else 8 * d_model // 3 // 16 * 16
