"""What sampling costs, beside `generate` of transformers with a T5 of the same shape."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paperwalk.generation import generate
from paperwalk.models.seq2seq import Seq2Seq
from paperwalk.timing import seconds

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def peer(model: Seq2Seq, bos: int, pad: int) -> "T5ForConditionalGeneration":
    """A new T5 of the model's shape and on its device, that never stops early."""
    from transformers import T5Config, T5ForConditionalGeneration

    c = model.config
    sizes: dict[str, Any] = {"vocab_size": c.vocab_size, "d_model": c.d_model, "d_kv": c.head_dim, "d_ff": c.d_ff}
    sizes |= {"num_layers": c.n_layers, "num_heads": c.n_heads, "feed_forward_proj": "gated-silu"}
    ends: dict[str, Any] = {"pad_token_id": pad, "decoder_start_token_id": bos, "tie_word_embeddings": False}
    theirs = T5ForConditionalGeneration(T5Config(**sizes, **ends)).eval()
    theirs.to(model.lm_head.device)
    theirs.generation_config.eos_token_id = None
    return theirs


def sampling_speed(
    model: Seq2Seq,
    sources: Sequence[torch.Tensor],
    samples: int,
    temperature: float,
    longest: int,
    ends: tuple[int, int, int],
    pairs: int = 3,
) -> dict[str, float]:
    """How many times as fast as transformers' `generate` ours samples: as in a "grow", and at "full" length.

    sources: token ids of each. longest: most tokens of a sample. ends: ids of the beginning, the end and the padding.
    Both are timed in turn, `pairs` times; the medians count.
    """
    bos, end, pad = ends
    theirs, device = peer(model, bos, pad), model.lm_head.device
    ids = torch.nn.utils.rnn.pad_sequence(list(sources), batch_first=True, padding_value=pad).to(device)
    how = {"temperature": temperature, "do_sample": True, "top_k": 0, "num_return_sequences": samples}
    slow = lambda n: theirs.generate(ids, attention_mask=(ids != pad).long(), max_new_tokens=n, **how)
    how_ours: dict[str, Any] = {"temperature": temperature, "samples": samples, "bos": bos, "pad": pad}
    fast = lambda eos: generate(model, list(sources), longest, "sample", eos=eos, **how_ours)
    lengths = [len(row) for row in fast(end)]
    assert {len(row) for row in fast(None)} == {longest}
    assert slow(max(lengths)).shape == (len(lengths), max(lengths) + 1)
    taken = {}
    for name, n, eos in (("grow", max(lengths), end), ("full", longest, None)):
        rounds = [(seconds(lambda: slow(n), device), seconds(lambda: fast(eos), device)) for _ in range(pairs)]
        taken[name] = np.median(rounds, 0)
    return {name: float(other / ours) for name, (other, ours) in taken.items()}
