"""A Llama-style decoder (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, grouped-query attention."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.models.layers import Attention, SwiGLU, rope_table

if TYPE_CHECKING:
    from paperwalk.models.seq2seq import Seq2SeqConfig


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
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "max_positions"):
            self._require(name, _is_whole(getattr(self, name)), "a whole number of at least 1")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._require(name, number and 0 < value < math.inf, "a finite number above 0")
        self._require("tie_embeddings", isinstance(self.tie_embeddings, bool), "True or False")
        divides = self.n_heads % self.n_kv_heads == 0
        self._require("n_kv_heads", divides, f"a divisor of n_heads = {self.n_heads}")
        if self.head_dim is None:
            fits = self.d_model % self.n_heads == 0
            self._require("n_heads", fits, f"a divisor of d_model = {self.d_model} unless head_dim is given")
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        even = _is_whole(self.head_dim) and self.head_dim % 2 == 0
        self._require("head_dim", even, "an even whole number of at least 2 (rotary positions turn pairs)")

    def _require(self, name, holds, allowed):
        if not holds:
            raise ValueError(f"{name} = {getattr(self, name)!r}: must be {allowed}")


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class KVCache:
    """Keys and values of the tokens read so far, in fixed storage; for inference (holds no gradients).

    keys, values: (n_layers, B, n_kv_heads, capacity, head_dim); the first `length` slots are filled, the others zero.
    position: int64 (1,) on the device, the slot that `store_next` fills; who calls it keeps it equal to `length`.
    """

    def __init__(
        self,
        config: "DecoderConfig | Seq2SeqConfig",
        batch: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self.position = torch.zeros(1, device=device, dtype=torch.long)

    @property
    def batch(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write k and v (B, n_kv_heads, T, head_dim) after the filled slots; return the layer's keys and
        values (B, n_kv_heads, length + T, head_dim). `length` moves once all layers are written."""
        start, T = self.length, k.shape[2]
        keys, values = self.keys[layer], self.values[layer]
        keys.narrow(2, start, T).copy_(k)
        values.narrow(2, start, T).copy_(v)
        return keys.narrow(2, 0, start + T), values.narrow(2, 0, start + T)

    def store_next(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write k and v (B, n_kv_heads, 1, head_dim) at `position`; return all of the layer's slots, filled or not."""
        self.keys[layer].index_copy_(2, self.position, k)
        self.values[layer].index_copy_(2, self.position, v)
        return self.keys[layer], self.values[layer]

    def grow(self, room: int) -> None:
        """Make room for `room` more tokens a row; what is stored stays."""
        self.keys = F.pad(self.keys, (0, 0, 0, room))  # the old keys are free before the values are copied
        self.values = F.pad(self.values, (0, 0, 0, room))

    def reorder(self, rows: torch.Tensor, in_place: bool = False) -> None:
        """Make row b a copy of what was row rows[b] (LongTensor, any length: rows may repeat or vanish).

        in_place: the storage stays the same, which asks for as many rows as before."""
        if in_place:
            for stored in (self.keys, self.values):
                filled = stored.narrow(3, 0, self.length)
                filled.copy_(filled[:, rows])
        else:
            self.keys = self.keys[:, rows]  # one after the other, as in `grow`
            self.values = self.values[:, rows]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: "DecoderConfig | Seq2SeqConfig"):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config.d_model, config.n_heads, config.n_kv_heads, config.head_dim)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = SwiGLU(config.d_model, config.d_ff)

    def forward(self, x: torch.Tensor, **attention: Any) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), **attention)
        return x + self.feed_forward(self.feed_forward_norm(x))


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
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
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
        weight = self.embedding.weight
        return KVCache(self.config, batch, length, weight.device, weight.dtype)

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
