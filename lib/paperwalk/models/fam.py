"""TransformerFAM: block sliding-window attention with a feedback attention memory (Hwang et al. 2024).

Text is read in blocks. In every layer a token reads its own block up to itself, the keys and values of the
M blocks before (the memory segments) and F vectors, the FAM, which the same layer wrote after the last block.
When a block is complete its layer reads it once more with F queries, made from the FAM, and so updates the FAM
(Algorithm 2). Without FAM (F = 0) this is the paper's baseline BSWA (Algorithm 1).

The new FAM of a layer depends on the layer's input and on its last FAM, on no other FAM. A layer can
therefore treat all tokens of a text at once; only the FAM, F vectors a block, is computed block after block.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.checks import require, require_positive, require_whole
from paperwalk.kernels.attention import attend
from paperwalk.kernels.fam_scan import FAMWeights, fam_scan
from paperwalk.models.layers import SwiGLU, require_even_heads, rotate


@dataclass(frozen=True)
class FAMConfig:
    """Sizes of a `TransformerFAM`. Raises ValueError naming the field, its value and what is allowed.

    block_size, memory_segments (M) and fam_length (F) are in tokens, blocks and vectors; F = 0 gives BSWA.
    The rest are ablations of the paper's form:
    stop_gradient: "feedback" cuts the gradient where a FAM enters the next update, so that a FAM learns from
    the next block alone; "blocks" cuts every path from a block into earlier ones, memory segments included
    (with F = 0: Transformer-XL's memory, Dai et al. 2019, with its keys and values held constant).
    fam_residual: False leaves out the path that adds the last FAM to the new one.
    separate_projections: True gives the FAM query, key, value and output matrices of its own.
    static_query: True asks every block the same F learned questions, instead of the last FAM.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    block_size: int
    memory_segments: int
    fam_length: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    stop_gradient: Literal["feedback", "blocks"] | None = None
    fam_residual: bool = True
    separate_projections: bool = False
    static_query: bool = False

    def __post_init__(self):
        require_whole(1, vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers)
        require_whole(1, n_heads=self.n_heads, d_ff=self.d_ff, block_size=self.block_size)
        require_whole(0, memory_segments=self.memory_segments, fam_length=self.fam_length)
        require_positive(rope_theta=self.rope_theta, norm_eps=self.norm_eps)
        require_even_heads(self.d_model, self.n_heads)
        allowed = (None, "feedback", "blocks")
        require("stop_gradient", self.stop_gradient, self.stop_gradient in allowed, "None, 'feedback' or 'blocks'")
        for name, paper in (("fam_residual", True), ("separate_projections", False), ("static_query", False)):
            value = getattr(self, name)
            require(name, value, isinstance(value, bool), "True or False")
            require(name, value, self.fam_length > 0 or value == paper, f"{paper} when fam_length = 0")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class FAMState:
    """What `TransformerFAM` keeps of the tokens read; its size does not grow with their number.

    fam: (n_layers, B, F, D), the FAM of the last complete block. keys, values: (n_layers, B, H, S, head_dim),
    rotated, of the S tokens that can be read again: up to M complete blocks, then the block now being read.
    position: of the next token. fresh: the FAM is still the prompt; no block has been complete.
    """

    fam: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    position: int = 0
    fresh: bool = True

    def detach(self) -> "FAMState":
        """The same state, without the graph that made it."""
        return replace(self, fam=self.fam.detach(), keys=self.keys.detach(), values=self.values.detach())


def _join(first, second, dim):
    """The two in one tensor; second itself when first is empty."""
    return torch.cat((first, second), dim) if first.shape[dim] > 0 else second


class Projections(nn.Module):
    """The matrices of an attention layer: queries, keys and values in one, and the output."""

    def __init__(self, config: FAMConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(
        self, x: torch.Tensor, rotary: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (B, T, D) -> q, k, v (B, H, T, head_dim), q and k rotated."""
        qkv = self.qkv(x).unflatten(-1, (3 * self.n_heads, -1))  # (B, T, 3 H, head_dim)
        qk, v = qkv.split((2 * self.n_heads, self.n_heads), 2)
        q, k = rotate(qk, *(table.to(qk.dtype) for table in rotary)).chunk(2, 2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


@dataclass(frozen=True)
class Span:
    """N pieces of c tokens, each within its block, that pass through the layers together: either one piece that
    follows r tokens of its block, or N whole blocks (r = 0, c = block_size).

    Rotary positions are pairs of cosines and signed sines.
    """

    n: int  # N
    complete: bool  # the pieces end their blocks
    fresh: bool  # the first FAM they read is still the prompt
    tokens: list[torch.Tensor]  # rotary positions of the tokens, (N c, 1, head_dim)
    fam: list[torch.Tensor]  # those of the FAM that each piece reads, (N, F, 1, head_dim)
    mask: torch.Tensor  # (N B, 1, c, M block_size + F + r + c), true where a token may read


class FAMBlock(nn.Module):
    """One layer: attention and feed-forward of the tokens and, with the same weights, of the FAM."""

    def __init__(self, config: FAMConfig):
        super().__init__()
        self.config = config
        self.attention_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.attention = Projections(config)
        self.separate = Projections(config) if config.separate_projections else None
        self.query = nn.Parameter(torch.empty(config.fam_length, config.d_model)) if config.static_query else None
        self.feed_forward_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = SwiGLU(config.d_model, config.d_ff)

    @property
    def fam_attention(self) -> Projections:
        """The projections of the FAM: those of the tokens, unless it has its own."""
        return self.attention if self.separate is None else self.separate

    def forward(
        self, x: torch.Tensor, fam: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, span: Span
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read a span: x (B, N c, D), fam (B, F, D), keys and values (B, H, M block_size + r, head_dim).

        Returns what x and fam become, and all keys and values (B, H, M block_size + r + N c, head_dim).
        """
        B, N, M = len(x), span.n, self.config.memory_segments
        q, k, v = self.attention(self.attention_norm(x), span.tokens)  # (B, H, N c, head_dim)
        keys, values = _join(keys, k, dim=2), _join(values, v, dim=2)
        fam, k, v = self._read_fam(fam, self._own_block(keys, N), self._own_block(values, N), span)
        if M > 0:
            k, v = _join(self._memory(keys, N), k, dim=3), _join(self._memory(values, N), v, dim=3)
        q = q.unflatten(2, (N, -1)).movedim(2, 0)  # (N, B, H, c, head_dim)
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)  # k, v: M block_size + F + r + c of each block
        y = attend(q, k, v, span.mask)  # (N B, H, c, head_dim)
        y = y.unflatten(0, (N, B)).permute(1, 0, 3, 2, 4).reshape(x.shape)
        return self.finish(self.attention, y, x), fam, keys, values

    def _own_block(self, kept, n):
        """Of keys or values kept (B, H, M block_size + r + N c, head_dim): (N, B, H, r + c, head_dim)."""
        return kept[:, :, self.config.memory_segments * self.config.block_size :].unflatten(2, (n, -1)).movedim(2, 0)

    def _memory(self, kept, n):
        """Of keys or values kept: the segments before each piece (N, B, H, M block_size, head_dim)."""
        b, size = self.config.block_size, self.config.memory_segments * self.config.block_size
        memory = kept[:, :, : size + (n - 1) * b].unfold(2, size, b).permute(2, 0, 1, 4, 3)
        return memory.detach() if self.config.stop_gradient == "blocks" else memory

    def _read_fam(self, fam, k, v, span):
        """The FAM after the span, and k and v (N, B, H, r + c, head_dim) after those of the FAM each piece reads."""
        config, attention = self.config, self.fam_attention
        if config.fam_length == 0:
            return fam, k, v
        if span.complete:
            ablations = config.fam_residual, config.stop_gradient, self.query
            return fam_scan(fam, k, v, span.fam, self._fam_weights(), config.norm_eps, span.fresh, *ablations)
        _, fam_k, fam_v = attention(self.attention_norm(fam), [table[0] for table in span.fam])  # (B, H, F, head_dim)
        return fam, torch.cat((fam_k[None], k), 3), torch.cat((fam_v[None], v), 3)

    def _fam_weights(self):
        attention, feed_forward = self.fam_attention, self.feed_forward
        return FAMWeights(
            self.attention_norm.weight,
            attention.qkv.weight,
            attention.out.weight,
            self.feed_forward_norm.weight,
            feed_forward.gate_up.weight,
            feed_forward.down.weight,
        )

    def finish(self, attention: Projections, y: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """What attention read, y (B, T, D) -> (B, T, D): the output matrix and the feed-forward layer."""
        x = attention.out(y) + residual
        return x + self.feed_forward(self.feed_forward_norm(x))


def initialise(model: nn.Module, n_layers: int) -> None:
    """Draw the matrices of a model anew: normal with standard deviation 1 / sqrt(length of a row), and, where they
    write to the residual stream, 1 / sqrt(2 n_layers) of that. The fixed 0.02 of `Decoder` suits wider models.
    """
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            residual = name.endswith(("out.weight", "feed_forward.down.weight"))
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1] * (2 * n_layers if residual else 1)))


class TransformerFAM(nn.Module):
    """Token ids in, next-token logits out, with a state of constant size to go on with.

    The first FAM of every layer is what the layer makes of F learned vectors, the prompt, that read each other
    alone; the first update adds no residual to it. A FAM stands at the last F positions of the block that it
    was made from. The output matrix is the embedding. Weights start as `initialise` says.
    """

    def __init__(self, config: FAMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.prompt = nn.Parameter(torch.empty(config.fam_length, config.d_model))
        self.blocks = nn.ModuleList(FAMBlock(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, config.norm_eps)
        initialise(self, config.n_layers)

    @property
    def n_parameters(self) -> int:
        """Number of trained scalars."""
        return sum(weight.numel() for weight in self.parameters())

    def initial_state(self, batch: int) -> FAMState:
        """The `FAMState` before the first token, for `batch` rows; the gradient reaches the prompt through it."""
        config, x, fam = self.config, self.prompt[None], []
        rotary = self._rotary(torch.arange(-config.fam_length, 0, device=x.device))
        for block in cast(Iterable[FAMBlock], self.blocks):
            q, k, v = block.fam_attention(block.attention_norm(x), rotary)  # (1, H, F, head_dim)
            y = attend(q, k, v).transpose(1, 2).flatten(2)  # (1, F, D)
            x = block.finish(block.fam_attention, y, x)
            fam.append(x.expand(batch, -1, -1))
        nothing = self.prompt.new_zeros(config.n_layers, batch, config.n_heads, 0, config.head_dim)
        return FAMState(torch.stack(fam), nothing, nothing)

    def forward(self, ids: torch.Tensor, state: FAMState | None = None) -> tuple[torch.Tensor, FAMState]:
        """Logits (B, T, V) of the token after each of ids (B, T), and the `FAMState` after the last of them.

        state: what an earlier call returned; ids then continue what it read, from any place within a block.
        The gradient goes through it: `FAMState.detach` stops it. One call on a text, calls on its pieces and
        calls on its tokens give the same logits. Raises ValueError for ids or a state that do not fit.
        """
        x, state = self.hidden(ids, state)
        return F.linear(x, self.embedding.weight), state

    def hidden(self, ids: torch.Tensor, state: FAMState | None = None) -> tuple[torch.Tensor, FAMState]:
        """As `forward`, with the states (B, T, D) after the final norm instead of logits."""
        self._check(ids, state)
        state = self.initial_state(len(ids)) if state is None else state
        T, b = ids.shape[1], self.config.block_size
        head = min(-state.keys.shape[3] % b, T)  # tokens up to the end of a block already begun
        tail = (T - head) % b
        x = []
        for piece in ids.split((head, T - head - tail, tail), 1):
            if piece.shape[1] > 0:
                y, state = self._read(piece, state)
                x.append(y)
        return self.norm(torch.cat(x, 1)), state

    def _read(self, ids, state):
        """Whole blocks, or a piece of one, through all layers: (B, T, D) before the final norm, new state."""
        config, T, kept = self.config, ids.shape[1], state.keys.shape[3]
        b, memory, begun = config.block_size, config.memory_segments * config.block_size, kept % config.block_size
        span = self._span(ids.shape, state)
        padding = (0, 0, memory + begun - kept, 0)  # memory segments that do not exist yet
        keys, values = F.pad(state.keys, padding), F.pad(state.values, padding)
        x = self.embedding(ids)  # (B, T, D)
        kept = min(memory, (kept + T) // b * b) if span.complete else kept + T
        after = []
        for block, *state_of_layer in zip(self.blocks, state.fam, keys, values):
            x, fam, k, v = block(x, *state_of_layer, span)
            after.append((fam, k[:, :, k.shape[2] - kept :], v[:, :, v.shape[2] - kept :]))
        fam, keys, values = (torch.stack(each) for each in zip(*after))
        return x, FAMState(fam, keys, values, state.position + T, state.fresh and not span.complete)

    def _span(self, shape, state):
        """The `Span` of ids of a shape (B, T) after a state: whole blocks, or a piece of one."""
        (B, T), kept, device = shape, state.keys.shape[3], state.keys.device
        b, f, begun = self.config.block_size, self.config.fam_length, kept % self.config.block_size
        n = max(T // b, 1)
        c = T // n
        block = torch.arange(n, device=device)[:, None, None]
        query = torch.arange(c, device=device)[:, None]
        key = torch.arange(-self.config.memory_segments * b, begun + c, device=device)  # from the block's first token
        mask = (key <= begun + query) & (block * b + key >= begun - kept)  # (N, c, M block_size + r + c)
        before, own = mask.split((mask.shape[2] - begun - c, begun + c), 2)
        mask = torch.cat((before, mask.new_ones(n, c, f), own), 2).repeat_interleave(B, 0)[:, None]
        first = torch.arange(n, device=device)[:, None] * b  # of each block, from the first one's beginning
        position = state.position - begun - f + first + torch.arange(f, device=device)  # (N, F)
        tokens = self._rotary(state.position + torch.arange(T, device=device))
        return Span(n, begun + c == b, state.fresh, tokens, self._rotary(position), mask)

    def _rotary(self, position):
        """Cosines and signed sines (..., 1, head_dim) of whole positions (...), as in `layers.rope_table`; the
        angles are float64, for a position may be far beyond any table."""
        weight, d = self.embedding.weight, self.config.head_dim
        even = torch.arange(0, d, 2, dtype=torch.float64, device=position.device)
        frequency = self.config.rope_theta ** (-even / d)
        angle = position[..., None, None] * frequency  # (..., 1, head_dim / 2)
        cos, sin = angle.cos(), angle.sin()
        return [torch.cat(pair, -1).to(weight) for pair in ((cos, cos), (-sin, sin))]

    def _check(self, ids, state):
        if ids.dim() != 2 or 0 in ids.shape:
            raise ValueError(f"ids of shape {tuple(ids.shape)}: must be (B, T), neither of them 0")
        if state is not None:
            config = self.config
            fam = (config.n_layers, len(ids), config.fam_length, config.d_model)
            if state.fam.shape != fam:
                raise ValueError(f"state with a FAM of shape {tuple(state.fam.shape)}: must be {fam} (layers, B, F, D)")
            most = (config.memory_segments + 1) * config.block_size - 1
            keys, rows = state.keys.shape, (config.n_layers, len(ids), config.n_heads)
            if keys[:3] != rows or keys[3] > most or keys != state.values.shape:
                raise ValueError(f"state with keys of shape {tuple(keys)}: must be {rows} and up to {most} tokens")
