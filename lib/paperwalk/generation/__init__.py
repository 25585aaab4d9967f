"""Continue prompts with a decoder, or decode sources with an encoder-decoder: greedy, sampled or by beam search.

`sampling` and `beam_search` choose tokens from logits; `prefixes` gives the logits and is all that knows the model;
`arguments` checks what is given.
"""

import torch
import torch.nn.functional as F

from paperwalk.generation.arguments import Method, Model, TokenIds, check, check_ends, check_range, padded
from paperwalk.generation.beam_search import beam_search
from paperwalk.generation.prefixes import Prefixes
from paperwalk.generation.sampling import Draws, choose_greedy, choose_sample, lengths_of, one_by_one, truncate
from paperwalk.models.seq2seq import Seq2Seq
from paperwalk.profiling import phase

__all__ = ["choose_greedy", "choose_sample", "generate", "sequence_log_probs", "truncate"]


@phase("generation")
def generate(
    model: Model,
    prompts: TokenIds,
    max_new_tokens: int,
    method: Method = "greedy",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    beams: int = 1,
    samples: int = 1,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    length_penalty: float = 0.0,
) -> list[torch.Tensor]:
    """Continuations of a batch of B prompts: a list of LongTensors of 1..max_new_tokens ids each.

    model: a `Decoder`, which continues the prompts, or a `Seq2Seq`, whose prompts are the sources: a continuation
    is then a target without the id `bos` that starts it. prompts: LongTensor (B, P), or a list of B 1-D
    LongTensors of any lengths. pad: id that fills the sources of a tensor on the right (None: they are full).
    method: "greedy" takes the likeliest token; "sample" draws from softmax(logits / temperature) cut down by
    `truncate` to top_k, top_p; "beam" keeps the `beams` likeliest continuations at each step and returns the
    best by total log-probability / length^length_penalty (0: the total itself; Wu et al. 2016, section 7,
    without its constants). samples: continuations drawn for each prompt, which is read once; those of prompt b
    are the rows b * samples to (b + 1) * samples - 1 of the list.
    eos: id that ends a continuation and is kept as its last token. generator: source of the draws, on the
    model's device: at each step one for every row, ended ones included, so that a row's draws do not depend on
    the other rows. use_cache=False reads the whole prefix anew at each step: slow, and the reference for the
    cached path.
    Raises ValueError naming parameter, value and what is allowed, also for one that its method or its model
    would ignore.
    """
    check_ends(model, bos, pad)
    ids, padding = padded(prompts, model.lm_head.device, left=not isinstance(model, Seq2Seq), pad=pad)
    check(
        model,
        ids,
        max_new_tokens,
        method,
        temperature,
        top_k,
        top_p,
        beams,
        samples,
        eos,
        generator,
        length_penalty,
    )

    draws = Draws(len(ids) * samples, ids.device, generator)

    def sample(logits, rows):
        return choose_sample(logits, temperature, top_k, top_p, draws()[rows])

    def greedy(logits, rows):
        return choose_greedy(logits)

    with torch.inference_mode():
        prefixes = Prefixes(model, ids, padding, bos, use_cache, max_new_tokens)
        if method == "beam":
            tokens = beam_search(prefixes, max_new_tokens, beams, eos, length_penalty)
        else:
            tokens = one_by_one(prefixes, max_new_tokens, samples, eos, sample if method == "sample" else greedy)
    lengths = lengths_of(tokens, eos)
    draws.give_back(tokens.shape[1] - max(lengths))
    rows = tokens.clone()  # can be trained on: it is no inference tensor
    return [row[:length] for row, length in zip(rows, lengths)]


def sequence_log_probs(
    model: Seq2Seq, prompts: TokenIds, continuations: TokenIds, bos: int, pad: int | None = None
) -> torch.Tensor:
    """log p(continuation | prompt) of a `Seq2Seq` in nats, at temperature 1: a tensor (R,), differentiable.

    prompts: B sources as in `generate`. continuations: R targets without bos as `generate` returns them, a list
    of 1-D LongTensors or a LongTensor (R, T) filled with `pad` on the right; R is a multiple of B, and R/B of
    them in a row belong to one prompt. Every token counts, eos too if there. float32, or the model's dtype if
    wider. Raises ValueError as `generate` does.
    """
    if not isinstance(model, Seq2Seq):
        raise ValueError(f"model = {type(model).__name__}: must be a Seq2Seq")
    check_ends(model, bos, pad)
    device, config = model.lm_head.device, model.config
    source, source_padding = padded(prompts, device, left=False, pad=pad)
    target, padding = padded(continuations, device, left=False, pad=pad, name="continuations")
    for name, ids in (("prompts", source), ("continuations", target)):
        check_range(name, ids, config.vocab_size)
    logits = model(source, F.pad(target[:, :-1], (1, 0), value=bos), source_padding)  # (R, T, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = -F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (R, T)
    if padding is not None:
        T = target.shape[1]
        real = torch.arange(T, device=device) < (T - padding)[:, None]
        log_probs = log_probs.where(real, 0)
    return log_probs.sum(1)
