"""A Llama-style decoder (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, grouped-query attention."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.checks import is_whole, require, require_positive, require_whole
from paperwalk.models.kv_cache import KVCache
from paperwalk.models.layers import Block, rope_table


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a `Decoder`. Raises ValueError naming the field, its value and what is allowed.

    head_dim defaults to d_model // n_heads; tie_embeddings uses the embedding as the output matrix too.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    max_positions: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    head_dim: int = None  # type: ignore[assignment]

    def __post_init__(self):
        require_whole(1, vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers, d_ff=self.d_ff)
        require_whole(1, n_heads=self.n_heads, n_kv_heads=self.n_kv_heads, max_positions=self.max_positions)
        require_positive(rope_theta=self.rope_theta, norm_eps=self.norm_eps)
        require("tie_embeddings", self.tie_embeddings, isinstance(self.tie_embeddings, bool), "True or False")
        divides = self.n_heads % self.n_kv_heads == 0
        require("n_kv_heads", self.n_kv_heads, divides, f"a divisor of n_heads = {self.n_heads}")
        if self.head_dim is None:
            fits = self.d_model % self.n_heads == 0
            require("n_heads", self.n_heads, fits, f"a divisor of d_model = {self.d_model} unless head_dim is given")
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        even = is_whole(self.head_dim, 1) and self.head_dim % 2 == 0
        require("head_dim", self.head_dim, even, "an even whole number of at least 2 (rotary positions turn pairs)")


class Decoder(nn.Module):
    """Token ids in, next-token logits out.

    Weights start as normal(0, 0.02); the two projections of a block that write to the residual stream are
    scaled by 1 / sqrt(2 n_layers) (Radford et al. 2019, section 2.3).
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        c = config
        sizes = c.d_model, c.n_heads, c.n_kv_heads, c.head_dim, c.d_ff, c.norm_eps
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(c.n_layers))
        self.norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.untied_head = None
        if not config.tie_embeddings:
            self.untied_head = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        cos, sin = rope_table(config.max_positions, config.head_dim, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)  # (max_positions, head_dim)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self):
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                scale = 1 / math.sqrt(2 * self.config.n_layers) if residual else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    @property
    def lm_head(self) -> torch.Tensor:
        """The output matrix (V, D): the embedding itself when the two are tied."""
        return self.embedding.weight if self.untied_head is None else self.untied_head

    @property
    def n_parameters(self) -> int:
        """Number of trained scalars, tied weights counted once."""
        return sum(weight.numel() for weight in self.parameters())

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty `KVCache` for `batch` rows of up to `length` tokens, on the model's device and dtype."""
        c, weight = self.config, self.embedding.weight
        return KVCache(c.n_layers, batch, c.n_kv_heads, length, c.head_dim, weight.device, weight.dtype)

    def forward(
        self, ids: torch.Tensor, cache: KVCache | None = None, padding: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); arguments as in `hidden`."""
        return F.linear(self.hidden(ids, cache, padding), self.lm_head)

    def hidden(
        self, ids: torch.Tensor, cache: KVCache | None = None, padding: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states (B, T, D) after the final norm, for token ids (B, T).

        cache: a `KVCache`; ids then continue the tokens it holds, and are added to it.
        padding: LongTensor (B,), how many tokens on the left of each row are padding, counted from the start
        of the row (cached tokens included): nothing reads them and positions start after them. States at
        padding are finite but mean nothing. Raises ValueError for ids, cache or padding that do not fit.
        """
        start = 0 if cache is None else cache.length
        self._check(ids, cache, padding, start)
        T = ids.shape[1]
        end = start + T
        mask, causal = None, cache is None or start == 0
        if padding is None:
            cos, sin = self.cos[start:end, None], self.sin[start:end, None]  # (T, 1, head_dim)
            if start > 0 and T > 1:
                mask = _causal_mask(start, end, ids.device)  # (T, S)
        else:
            position = torch.arange(start, end, device=ids.device) - padding[:, None]  # (B, T)
            position = position.clamp(min=0)
            cos, sin = self.cos[position].unsqueeze(2), self.sin[position].unsqueeze(2)  # (B, T, 1, head_dim)
            mask, causal = _padded_mask(start, end, padding), False  # (B, 1, T, S)
        x = self.embedding(ids)  # (B, T, D)
        for layer, block in enumerate(self.blocks):
            store = None if cache is None else lambda k, v, layer=layer: cache.store(layer, k, v)
            x = block(x, cos=cos, sin=sin, mask=mask, causal=causal, store=store)
        if cache is not None:
            cache.length = end
        return self.norm(x)

    def hidden_next(self, ids: torch.Tensor, cache: KVCache, padding: torch.Tensor | None = None) -> torch.Tensor:
        """As `hidden` for one token a row, ids (B, 1), by operations whose shapes and addresses stay the same from
        token to token, as a CUDA graph asks for: the cache is read whole, under a mask. `cache.position` says where the
        token stands. Checks nothing and moves neither `position` nor `length`."""
        at = cache.position  # (1,)
        key = torch.arange(cache.capacity, device=ids.device)
        mask = (key <= at)[None]  # (1, S)
        if padding is None:
            cos, sin = self.cos[at, None], self.sin[at, None]  # (1, 1, head_dim)
        else:
            position = (at - padding[:, None]).clamp(min=0)  # (B, 1)
            cos, sin = self.cos[position].unsqueeze(2), self.sin[position].unsqueeze(2)  # (B, 1, 1, head_dim)
            mask = (mask & (key >= padding[:, None]) | (key == at))[:, None, None]  # (B, 1, 1, S)
        x = self.embedding(ids)  # (B, 1, D)
        for layer, block in enumerate(self.blocks):
            store = lambda k, v, layer=layer: cache.store_next(layer, k, v)
            x = block(x, cos=cos, sin=sin, mask=mask, store=store)
        return self.norm(x)

    def _check(self, ids, cache, padding, start):
        if ids.dim() != 2 or 0 in ids.shape:
            raise ValueError(f"ids of shape {tuple(ids.shape)}: must be (B, T), neither of them 0")
        B, T = ids.shape
        room = self.config.max_positions
        if start + T > room:
            raise ValueError(f"ids reach {start + T} tokens: must be at most {room} (max_positions)")
        if cache is not None and (cache.batch != B or start + T > cache.capacity):
            raise ValueError(
                f"cache for {cache.batch} rows of {cache.capacity} tokens: must hold {B} rows of {start + T}"
            )
        if padding is not None and padding.shape != (B,):
            raise ValueError(f"padding of shape {tuple(padding.shape)}: must be ({B},), one count a row")


def _causal_mask(start, end, device):
    """(T, S): queries at start..end-1 may read the keys at 0..end-1 up to their own."""
    key = torch.arange(end, device=device)
    return key <= key[start:, None]


def _padded_mask(start, end, padding):
    """(B, 1, T, S): causal, without the padding; padding queries read themselves alone: no row is empty."""
    key = torch.arange(end, device=padding.device)
    query = key[start:, None]  # (T, 1)
    real = key >= padding[:, None, None]  # (B, 1, S)
    return ((key <= query) & real | (key == query)).unsqueeze(1)
