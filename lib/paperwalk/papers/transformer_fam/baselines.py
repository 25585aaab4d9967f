"""What TransformerFAM is compared with, beside its own class without FAM and the full-attention `Decoder`."""

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.checks import require_whole
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.fam import initialise


class RecurrentMemoryTransformer(nn.Module):
    """RMT (Bulatov et al. 2022) on a `Decoder`: one memory for the whole model, carried by the top layer.

    A block is read as [memory, tokens, memory] under one causal mask: tokens read the first copy, the second
    copy reads all before it. What the top layer makes of the second copy is the memory of the next block.
    The first memory is learned. Blocks follow one another, and the gradient goes through all of them. Weights
    start as `fam.initialise` says.

    config: a `DecoderConfig` whose max_positions is at least block_size + 2 memory_length. Raises ValueError
    otherwise, and for lengths that are no whole numbers of at least 1.
    """

    def __init__(self, config: DecoderConfig, block_size: int, memory_length: int):
        super().__init__()
        require_whole(1, block_size=block_size, memory_length=memory_length)
        need = block_size + 2 * memory_length
        if config.max_positions < need:
            raise ValueError(
                f"max_positions = {config.max_positions}: must be at least {need} (block and two memories)"
            )
        self.block_size, self.memory_length = block_size, memory_length
        self.decoder = Decoder(config)
        self.memory = nn.Parameter(torch.empty(memory_length, config.d_model))
        initialise(self, config.n_layers)

    @property
    def n_parameters(self) -> int:
        """Number of trained scalars."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, ids: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, T, V) for ids (B, T), and the memory (B, memory_length, D) after the last complete block.

        state: such a memory; ids then start at a block's first token.
        """
        decoder, m = self.decoder, self.memory_length
        memory = self.memory.expand(len(ids), -1, -1) if state is None else state
        hidden = []
        for block in ids.split(self.block_size, 1):
            x = torch.cat((memory, decoder.embedding(block), memory), 1)  # (B, m + b + m, D)
            cos, sin = decoder.cos[: x.shape[1], None], decoder.sin[: x.shape[1], None]
            for layer in decoder.blocks:
                x = layer(x, cos=cos, sin=sin, causal=True)
            hidden.append(x[:, m:-m])
            memory = x[:, -m:] if block.shape[1] == self.block_size else memory
        return F.linear(decoder.norm(torch.cat(hidden, 1)), decoder.lm_head), memory
