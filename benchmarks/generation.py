"""Sampling 64 continuations with a decoder and with an encoder-decoder, against transformers' generate on models of the
same shape: every sample of full length, so that both write as many tokens."""

import torch

from benchmarks.harness import Contest, Unequal, run
from paperwalk.generation import generate
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, PROMPT, NEW, VOCAB = 64, 16, 48, 1500


def prompts():
    ids = torch.randint(3, VOCAB, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))
    return (ids.to(DEVICE),)


def decoders():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(vocab_size=VOCAB, d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=704, max_positions=512)
    ours = Decoder(DecoderConfig(**sizes)).to(DEVICE).eval()
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=704,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).to(DEVICE).eval()
    theirs.generation_config.eos_token_id = None
    return {
        "paperwalk": lambda ids: generate(ours, ids, NEW, "sample"),
        "transformers": lambda ids: theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=True, top_k=0
        )[:, PROMPT:],
    }


def encoder_decoders():
    from transformers import T5Config, T5ForConditionalGeneration

    ours = (
        Seq2Seq(Seq2SeqConfig(VOCAB, d_model=128, n_layers=2, n_heads=4, d_ff=352, max_positions=128)).to(DEVICE).eval()
    )
    c = ours.config
    sizes = dict(vocab_size=VOCAB, d_model=c.d_model, d_kv=c.head_dim, d_ff=c.d_ff, num_layers=c.n_layers)
    sizes |= dict(num_heads=c.n_heads, feed_forward_proj="gated-silu", tie_word_embeddings=False)
    theirs = T5ForConditionalGeneration(T5Config(**sizes, pad_token_id=0, decoder_start_token_id=1)).to(DEVICE).eval()
    theirs.generation_config.eos_token_id = None
    return {
        "paperwalk": lambda ids: generate(ours, ids, NEW, "sample", bos=1),
        "transformers": lambda ids: theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=True, top_k=0
        )[:, 1:],
    }


def check(name, result, reference):
    """Samples differ; their number and length must not."""
    if [len(row) for row in result] != [len(row) for row in reference] or len(result) != BATCH:
        raise Unequal(f"generation: {name}: not {BATCH} continuations of {NEW} tokens")


SIZE = f"batch {BATCH}, {PROMPT} + {NEW} tokens"
CONTESTS = [
    Contest("generation", f"decoder, D 256, 4 layers, {SIZE}", prompts, decoders(), check, rounds=5),
    Contest(
        "generation", f"encoder-decoder, D 128, 2 + 2 layers, {SIZE}", prompts, encoder_decoders(), check, rounds=5
    ),
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest)
