"""Which targets the Goldfish loss keeps (Hans et al., arXiv 2406.10209, section 3)."""

import torch

from paperwalk.checks import require_whole

from .torch_impl import MASKS

STRATEGIES = tuple(MASKS)
COMPILED_FROM = 1 << 15  # ids of a CPU tensor: below, starting the compiled form's threads costs more than it saves


def goldfish_mask(ids: torch.Tensor, k: int, h: int = 13, strategy: str = "hash") -> torch.Tensor:
    """Bool tensor of ids' shape: True where the target is kept, False where the loss drops it.

    ids: integer tensor (..., T), any device; position i of a row is the target x_i, the tokens before it are its
    context. About one target in k is dropped. Strategies:

    - "hash" (the paper's): drop x_i iff a 64-bit, order-sensitive hash of the h tokens BEFORE it is below 2^64/k.
      Equal contexts are masked alike wherever they stand; the first h targets of a row have no full context and
      are kept.
    - "static": drop every k-th target of a row; h plays no part.
    - "random": drop each target with probability 1/k, drawn anew at each call from torch's CPU generator; h plays
      no part.
    - "released-hash" (the authors' code, which differs from the paper): the key is the product of the h ids ending
      at AND INCLUDING x_i, modulo 1,000,003, looked up in a fixed table of uniform numbers. The first h-1 targets
      are kept. Order-blind, and degenerate where an id is 0 or the product wraps to 0.

    Masks depend on nothing but a row's ids (random: and the generator's state), and are identical on CPU and GPU.
    Raises TypeError for ids that are no integers, ValueError for k < 2, h < 1 or an unknown strategy.
    """
    if not isinstance(ids, torch.Tensor) or ids.dtype not in (
        torch.int64,
        torch.int32,
        torch.int16,
        torch.uint8,
    ):
        raise TypeError(f"ids = {getattr(ids, 'dtype', type(ids).__name__)}: must be an integer tensor")
    if ids.ndim == 0:
        raise ValueError("ids: must have at least one dimension, the tokens of a row")
    require_whole(2, k=k)
    require_whole(1, h=h)
    if strategy not in MASKS:
        raise ValueError(f"strategy = {strategy!r}: must be one of {', '.join(STRATEGIES)}")
    return _form(ids, strategy)(ids.long(), k, h)


def _form(ids, strategy):
    """The fastest form of a strategy for these ids; all forms of one give the same mask."""
    if strategy == "hash" and ids.is_cuda:
        from .triton_impl import hash_mask
    elif strategy == "hash" and ids.device.type == "cpu" and ids.numel() >= COMPILED_FROM:
        from .numba_impl import hash_mask
    else:
        hash_mask = MASKS[strategy]
    return hash_mask
