"""Sampling 64 continuations with a decoder and with an encoder-decoder, against transformers' generate on models of the
same shape: at full length, so that both write as many tokens, and until each sample ends, as chapters use it."""

import statistics

import torch
from tqdm import trange

from benchmarks.harness import Contest, Unequal, run
from paperwalk.data import corpora
from paperwalk.generation import generate
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, PROMPT, NEW, VOCAB = 64, 16, 48, 1500
PAD, BOS, EOS = 0, 1, 2
SENTENCE, SAMPLES = 128, 8  # most tokens of a sampled sentence; samples of each source
SAMPLING = dict(do_sample=True, top_k=0)


def llama(ours):
    """transformers' Llama with the weights of a `Decoder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = ours.config
    sizes = dict(vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ff)
    sizes |= dict(num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads, num_key_value_heads=c.n_kv_heads)
    ends = dict(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=None)
    config = LlamaConfig(**sizes, **ends, rms_norm_eps=c.norm_eps, tie_word_embeddings=True)
    theirs = LlamaForCausalLM(config)
    weights = {"embed_tokens.weight": ours.embedding.weight, "norm.weight": ours.norm.weight}
    for n, block in enumerate(ours.blocks):
        q, k, v = block.attention.qkv.weight.split([m * c.head_dim for m in (c.n_heads, c.n_kv_heads, c.n_kv_heads)])
        gate, up = block.feed_forward.gate_up.weight.chunk(2)
        weights |= {
            f"layers.{n}.input_layernorm.weight": block.attention_norm.weight,
            f"layers.{n}.post_attention_layernorm.weight": block.feed_forward_norm.weight,
            f"layers.{n}.self_attn.q_proj.weight": q,
            f"layers.{n}.self_attn.k_proj.weight": k,
            f"layers.{n}.self_attn.v_proj.weight": v,
            f"layers.{n}.self_attn.o_proj.weight": block.attention.out.weight,
            f"layers.{n}.mlp.gate_proj.weight": gate,
            f"layers.{n}.mlp.up_proj.weight": up,
            f"layers.{n}.mlp.down_proj.weight": block.feed_forward.down.weight,
        }
    theirs.model.load_state_dict(weights)
    return theirs.to(DEVICE).eval()


def t5(ours):
    """transformers' T5 of the shape of a `Seq2Seq`."""
    from transformers import T5Config, T5ForConditionalGeneration

    c = ours.config
    sizes = dict(vocab_size=VOCAB, d_model=c.d_model, d_kv=c.head_dim, d_ff=c.d_ff, num_layers=c.n_layers)
    sizes |= dict(num_heads=c.n_heads, feed_forward_proj="gated-silu", tie_word_embeddings=False, dropout_rate=0.0)
    return T5ForConditionalGeneration(T5Config(**sizes, pad_token_id=PAD, decoder_start_token_id=BOS)).to(DEVICE).eval()


def decoder():
    torch.manual_seed(0)
    sizes = dict(vocab_size=VOCAB, d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=704, max_positions=512)
    return Decoder(DecoderConfig(**sizes)).to(DEVICE).eval()


def encoder_decoder():
    torch.manual_seed(0)
    sizes = dict(d_model=128, n_layers=2, n_heads=4, d_ff=352, max_positions=256)
    return Seq2Seq(Seq2SeqConfig(VOCAB, **sizes)).to(DEVICE).eval()


def prompts(batch=BATCH):
    ids = torch.randint(3, VOCAB, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
    return (ids.to(DEVICE),)


def full_length():
    """Untrained models, which have no reason to end: every sample has NEW tokens."""
    ours, ours_seq2seq = decoder(), encoder_decoder()
    theirs, theirs_seq2seq = llama(ours), t5(ours_seq2seq)
    for model in (theirs, theirs_seq2seq):
        model.generation_config.eos_token_id = None
    case = f"D {{}}, batch {BATCH}, {PROMPT} + {NEW} tokens"
    yield (
        "decoder, " + case.format("256, 4 layers"),
        prompts,
        {
            "paperwalk": lambda ids: generate(ours, ids, NEW, "sample"),
            "transformers": lambda ids: theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, **SAMPLING
            )[:, PROMPT:],
        },
        check_full_length,
    )
    yield (
        "encoder-decoder, " + case.format("128, 2 + 2 layers"),
        prompts,
        {
            "paperwalk": lambda ids: generate(ours_seq2seq, ids, NEW, "sample", bos=BOS),
            "transformers": lambda ids: theirs_seq2seq.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, **SAMPLING
            )[:, 1:],
        },
        check_full_length,
    )


def check_full_length(name, result, reference):
    """Samples differ; their number and length must not."""
    if [len(row) for row in result] != [len(row) for row in reference] or {len(row) for row in result} != {NEW}:
        raise Unequal(f"generation: {name}: not {len(reference)} continuations of {NEW} tokens")


def one_row():
    """Batch 1, where a token costs a reading of all weights: on a GPU those of a model that no cache holds."""
    if DEVICE == "cuda":
        sizes = dict(d_model=2048, n_layers=16, n_heads=32, n_kv_heads=8, d_ff=8192, max_positions=512)
        ours = Decoder(DecoderConfig(vocab_size=32768, **sizes)).to(DEVICE, torch.bfloat16).eval()
    else:
        ours = decoder()
    theirs = llama(ours).to(ours.lm_head.dtype)
    theirs.generation_config.eos_token_id = None
    c = ours.config
    matrices = [weight.detach() for weight in ours.parameters() if weight.dim() == 2]
    vectors = [weight.new_ones(weight.shape[1]) for weight in matrices]

    def weights_read(ids):
        for _ in range(NEW):
            for matrix, vector in zip(matrices, vectors):
                torch.mv(matrix, vector)

    yield (
        f"decoder, D {c.d_model}, {c.n_layers} layers, batch 1, {PROMPT} + {NEW} tokens",
        lambda: prompts(1),
        {
            "paperwalk": lambda ids: generate(ours, ids, NEW, "sample"),
            "transformers": lambda ids: theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, **SAMPLING
            )[:, PROMPT:],
            "floor: products of a vector with all weights": weights_read,
        },
        check_full_length,
    )


def sentences():
    """(N, SENTENCE) ids of the sentences of novels, each with its end, padded on the right; their tokenizer knows no
    special tokens: its ids are moved up by three."""
    books = corpora.load("books")
    tokenizer = corpora.train_tokenizer(books, VOCAB - 3)
    texts = [text for book in books for text in book.text[:400_000].replace("\n\n", " ").split(". ") if len(text) > 20]
    rows = torch.full((len(texts), SENTENCE), PAD)
    for row, encoded in zip(rows, tokenizer.encode_batch(texts)):
        ids = torch.tensor([*(i + 3 for i in encoded.ids), EOS])[:SENTENCE]
        row[: len(ids)] = ids
    return rows[(rows != PAD).sum(1) > 8].to(DEVICE)


def fit(model, loss, rows, steps, label):
    """A short training: enough to learn the words and how long sentences are."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in trange(steps, desc=label, leave=False):
        batch = rows[torch.randint(len(rows), (32,))]
        optimizer.zero_grad()
        loss(batch[:, : int((batch != PAD).sum(1).max())]).backward()
        optimizer.step()
    return model.eval()


def until_the_end():
    """Sentences begun by four tokens, and eight endings of each of eight sentences, by models trained for a moment."""
    rows = sentences()
    entropy = torch.nn.functional.cross_entropy
    ours = decoder()
    fit(
        ours,
        lambda ids: entropy(ours(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD),
        rows,
        60,
        "decoder",
    )
    theirs = llama(ours)
    begun = rows[:BATCH, :4]
    options = dict(max_new_tokens=SENTENCE, eos_token_id=EOS, pad_token_id=PAD)
    same_greedy(ours, theirs, begun, options)
    yield (
        f"decoder, until each of {BATCH} sentences ends",
        lambda: (begun,),
        {
            "paperwalk": lambda ids: generate(ours, ids, SENTENCE, "sample", eos=EOS),
            "transformers": lambda ids: ended(
                theirs.generate(ids, attention_mask=torch.ones_like(ids), **SAMPLING, **options)[:, 4:]
            ),
        },
        check_lengths,
    )
    ours_seq2seq = encoder_decoder()
    theirs_seq2seq = t5(ours_seq2seq)

    def parts(ids):
        return ids[:, :8], ids[:, 8:]

    def our_loss(ids):
        source, target = parts(ids)
        return entropy(
            ours_seq2seq(source, torch.nn.functional.pad(target[:, :-1], (1, 0), value=BOS)).flatten(0, 1),
            target.flatten(),
            ignore_index=PAD,
        )

    def their_loss(ids):
        source, target = parts(ids)
        return theirs_seq2seq(input_ids=source, labels=target.masked_fill(target == PAD, -100)).loss

    fit(ours_seq2seq, our_loss, rows, 150, "encoder-decoder")
    fit(theirs_seq2seq, their_loss, rows, 150, "T5")
    sources = rows[: BATCH // SAMPLES, :8]
    yield (
        f"encoder-decoder, {SAMPLES} endings of each of {BATCH // SAMPLES} sentences",
        lambda: (sources,),
        {
            "paperwalk": lambda ids: generate(
                ours_seq2seq, ids, SENTENCE, "sample", samples=SAMPLES, bos=BOS, eos=EOS, pad=PAD
            ),
            "transformers": lambda ids: ended(
                theirs_seq2seq.generate(
                    ids, attention_mask=torch.ones_like(ids), num_return_sequences=SAMPLES, **SAMPLING, **options
                )[:, 1:]
            ),
        },
        check_lengths,
    )


def ended(rows):
    """Each row up to and with its first end."""
    return [row[: int((row == EOS).int().argmax()) + 1] if (row == EOS).any() else row for row in rows]


def same_greedy(ours, theirs, ids, options):
    """The models are the same: without chance they continue alike."""
    mine = generate(ours, ids, SENTENCE, eos=EOS)
    other = ended(
        theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)[:, ids.shape[1] :]
    )
    if [row.tolist() for row in mine] != [row.tolist() for row in other]:
        raise Unequal("generation: transformers' greedy continuations are not ours")


def check_lengths(name, result, reference):
    """As many samples, and on average as long, within four standard errors."""
    ours, theirs = ([len(row) for row in rows] for rows in (reference, result))
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    apart = abs(statistics.mean(ours) - statistics.mean(theirs))
    if len(theirs) != BATCH or len(ours) != BATCH or (result is not reference and apart > 4 * error):
        raise Unequal(f"generation: {name}: {len(theirs)} samples, whose mean length is {apart:.1f} tokens from ours")
    print(f"generation: {name}: {statistics.mean(theirs):.1f} tokens a sample, at most {max(theirs)}")


if __name__ == "__main__":
    for contests in (full_length, one_row, until_the_end):
        for case, inputs, implementations, check in contests():
            run(Contest("generation", case, inputs, implementations, check, rounds=7))
