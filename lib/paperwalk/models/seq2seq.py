"""An encoder-decoder (Raffel et al. 2020, with the parts of Llama) as used by Searchformer (Lehnert et al. 2024).

Both stacks: RMSNorm before each part, SwiGLU, no biases, rotary positions in self-attention, no dropout.
Cross-attention knows no positions. Encoder, decoder and output have an embedding matrix each. Give every source
an id that marks its start or end, as the paper does: n equal tokens alone look the same for every n, because
rotary positions are relative and softmax averages.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from paperwalk.checks import require_positive, require_whole
from paperwalk.models.kv_cache import KVCache
from paperwalk.models.layers import Attention, Block, CrossAttention, SwiGLU, require_even_heads, rope_table

SIZES = {
    "s": dict(d_model=192, n_layers=6, n_heads=3, d_ff=512),
    "m": dict(d_model=384, n_layers=8, n_heads=4, d_ff=1024),
    "l": dict(d_model=768, n_layers=9, n_heads=4, d_ff=2048),
    "xl": dict(d_model=1152, n_layers=16, n_heads=12, d_ff=3072),
}
"""The released models of Searchformer: d_ff is 8/3 d_model, rounded up to a multiple of 256.

The paper calls them 15M, 45M, 175M and 757M. That counts the tables of rotary positions, 2 x 65,536 x head_dim
numbers that are never trained; with the tables `xl` would need 20 layers to come to 757M, with 16 it has 609M.
"""


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of a `Seq2Seq`. Raises ValueError naming the field, its value and what is allowed.

    n_layers: of the encoder, and of the decoder. max_positions: most tokens of a source, and of a target.
    Searchformer's: `Seq2SeqConfig(**SIZES["s"], vocab_size=118, max_positions=1024)`.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    max_positions: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self):
        require_whole(1, vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers)
        require_whole(1, n_heads=self.n_heads, d_ff=self.d_ff, max_positions=self.max_positions)
        require_positive(rope_theta=self.rope_theta, norm_eps=self.norm_eps)
        require_even_heads(self.d_model, self.n_heads)

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of B sources: keys and values of every layer's cross-attention.

    keys, values: one tensor (B, n_heads, S, head_dim) a layer. mask: bool (B, 1, 1, S), true at real tokens;
    None where no source is padded.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    mask: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.keys[0])

    def __getitem__(self, rows: torch.Tensor) -> "Memory":
        """The memory of the sources rows (LongTensor) alone."""
        mask = None if self.mask is None else self.mask[rows]
        return Memory(tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values), mask)


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + cross(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config.d_model, config.n_heads, config.n_kv_heads, config.head_dim)
        self.cross_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.cross = CrossAttention(config.d_model, config.n_heads, config.head_dim)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = SwiGLU(config.d_model, config.d_ff)

    def forward(
        self, x: torch.Tensor, k: torch.Tensor, v: torch.Tensor, source_mask: torch.Tensor | None, **attention: Any
    ) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), **attention)
        x = x + self.cross(self.cross_norm(x), k, v, source_mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Seq2Seq(nn.Module):
    """Source and target token ids in, next-token logits of the target out.

    Weights start as in the released code, at torch's defaults: embeddings normal(0, 1), all other matrices
    uniform within 1 / sqrt(width of the input).
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        self.config = config
        V, D = config.vocab_size, config.d_model
        sizes = D, config.n_heads, config.n_kv_heads, config.head_dim, config.d_ff, config.norm_eps
        self.source_embedding = nn.Embedding(V, D)
        self.encoder = nn.ModuleList(Block(*sizes) for _ in range(config.n_layers))
        self.encoder_norm = nn.RMSNorm(D, config.norm_eps)
        self.encoder_out = nn.Linear(D, D, bias=False)
        self.target_embedding = nn.Embedding(V, D)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.n_layers))
        self.decoder_norm = nn.RMSNorm(D, config.norm_eps)
        self.head = nn.Linear(D, V, bias=False)
        cos, sin = rope_table(config.max_positions, config.head_dim, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)  # (max_positions, head_dim)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def lm_head(self) -> torch.Tensor:
        """The output matrix (V, D)."""
        return self.head.weight

    @property
    def n_parameters(self) -> int:
        """Number of trained scalars."""
        return sum(weight.numel() for weight in self.parameters())

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty `KVCache` for `batch` targets of up to `length` tokens, on the model's device and dtype."""
        c, weight = self.config, self.lm_head
        return KVCache(c.n_layers, batch, c.n_kv_heads, length, c.head_dim, weight.device, weight.dtype)

    def forward(
        self, source: torch.Tensor, target: torch.Tensor, source_padding: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (R, T, V) of the token after each of target (R, T); source (B, S) as in `encode`.

        R is a multiple of B: R/B targets in a row belong to one source, which is encoded once. Padding on the
        right of a target needs no mask: real tokens never read it; its own logits mean nothing.
        """
        return self.head(self.hidden(target, self.encode(source, source_padding)))

    def encode(self, source: torch.Tensor, padding: torch.Tensor | None = None) -> Memory:
        """The `Memory` of source (B, S), token ids.

        padding: LongTensor (B,), how many tokens on the right of each row are padding; nothing reads them.
        Raises ValueError for a source or padding that does not fit.
        """
        self._check("source", source, 0)
        B, S = source.shape
        mask = None
        if padding is not None:
            if padding.shape != (B,):
                raise ValueError(f"padding of shape {tuple(padding.shape)}: must be ({B},), one count a row")
            length = (S - padding).clamp(min=1)  # no row is empty
            mask = (torch.arange(S, device=source.device) < length[:, None])[:, None, None]  # (B, 1, 1, S)
        cos, sin = self.cos[:S, None], self.sin[:S, None]  # (S, 1, head_dim)
        x = self.source_embedding(source)  # (B, S, D)
        for block in self.encoder:
            x = block(x, cos=cos, sin=sin, mask=mask)
        x = self.encoder_out(self.encoder_norm(x))
        keys, values = zip(*(block.cross.keys_values(x) for block in cast(Iterable[DecoderBlock], self.decoder)))
        return Memory(keys, values, mask)

    def hidden(self, target: torch.Tensor, memory: Memory, cache: KVCache | None = None) -> torch.Tensor:
        """Hidden states (R, T, D) after the final norm, for target (R, T) read with the `Memory` of B sources.

        R is a multiple of B, as in `forward`. cache: a `KVCache`; the target then continues the tokens it
        holds, and is added to it. Raises ValueError for a target, memory or cache that does not fit.
        """
        start = 0 if cache is None else cache.length
        self._check("target", target, start)
        R, T = target.shape
        end = start + T
        if R % len(memory):
            raise ValueError(f"target of {R} rows: must be a multiple of the {len(memory)} sources")
        if cache is not None and (cache.batch != R or end > cache.capacity):
            raise ValueError(f"cache for {cache.batch} rows of {cache.capacity} tokens: must hold {R} rows of {end}")
        mask = None
        if start > 0 and T > 1:
            key = torch.arange(end, device=target.device)
            mask = key <= key[start:, None]  # (T, end)
        cos, sin = self.cos[start:end, None], self.sin[start:end, None]  # (T, 1, head_dim)
        x = self.target_embedding(target)  # (R, T, D)
        for layer, (block, k, v) in enumerate(zip(self.decoder, memory.keys, memory.values)):
            store = None if cache is None else lambda k, v, layer=layer: cache.store(layer, k, v)
            x = block(x, k, v, memory.mask, cos=cos, sin=sin, mask=mask, causal=start == 0, store=store)
        if cache is not None:
            cache.length = end
        return self.decoder_norm(x)

    def hidden_next(self, target: torch.Tensor, memory: Memory, cache: KVCache) -> torch.Tensor:
        """As `hidden` for one token a row, target (R, 1), with shapes that stay the same: see `Decoder.hidden_next`."""
        at = cache.position  # (1,)
        mask = (torch.arange(cache.capacity, device=target.device) <= at)[None]  # (1, S)
        cos, sin = self.cos[at, None], self.sin[at, None]  # (1, 1, head_dim)
        x = self.target_embedding(target)  # (R, 1, D)
        for layer, (block, k, v) in enumerate(zip(self.decoder, memory.keys, memory.values)):
            store = lambda k, v, layer=layer: cache.store_next(layer, k, v)
            x = block(x, k, v, memory.mask, cos=cos, sin=sin, mask=mask, store=store)
        return self.decoder_norm(x)

    def _check(self, name, ids, start):
        if ids.dim() != 2 or 0 in ids.shape:
            raise ValueError(f"{name} of shape {tuple(ids.shape)}: must be (rows, tokens), neither of them 0")
        reach, room = start + ids.shape[1], self.config.max_positions
        if reach > room:
            raise ValueError(f"{name} reaches {reach} tokens: must be at most {room} (max_positions)")
