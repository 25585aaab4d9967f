"""Each chapter's gpu profile fits on one GPU of 80 GB, three seeds of it side by side. Computed: no GPU is needed.

All workers are taken to be at their own largest moment at once. Sampled searches end as A*'s own do, in all workers but
one, which is at its worst: no row of its ends.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from chapters.definitions import load
from deploy.gpu import runner
from device import memory
from paperwalk import runs
from paperwalk.kernels import astar
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig
from paperwalk.runs.parameters import profile_file

pytestmark = pytest.mark.full

GB, LIMIT = 1e9, 70.0
SEEDS = len(runner.SEEDS)  # side by side
CONTEXT = 0.7  # GB a process, for CUDA itself and cuBLAS


def fit(chapter, workers, parts, worst=0.0):
    """Fails where `workers` times the largest of the parts, in bytes, is too much; worst: one worker's worst."""
    largest = max(parts.values())
    fit_together(chapter, workers, parts, [max(worst, largest)] + [largest] * (workers - 1))


def fit_together(name, workers, parts, at_once):
    """Fails where the `workers` largest of `at_once`, bytes of what runs side by side, are too much; parts: to say."""
    at_once = sorted(at_once, reverse=True)[:workers]
    taken = SEEDS * (sum(at_once) / GB + CONTEXT * len(at_once))
    each = ", ".join(f"{part} {size / GB:.2f}" for part, size in parts.items())
    who = f"{name}: {SEEDS} seeds of {len(at_once)} workers"
    said = f"{who} take {taken:.1f} GB, the largest {at_once[0] / GB:.2f}; each: {each}"
    print(said)
    assert taken <= LIMIT, said
    chapter, _, part = name.partition(", ")
    counted = f" {taken:.0f} GB" + f" ({part})" * bool(part)
    text = profile_file(chapter, "gpu").read_text(encoding="utf-8")
    assert counted in next(line for line in text.splitlines() if line.startswith("# Three seeds, counted:")), said


def space_of(chapter, **known):
    known |= {"p": SimpleNamespace(**runs.profile_values(chapter, "gpu"))}  # `load` would ask for a GPU
    space = load(chapter, device=torch.device("cpu"), cuda=False, **known).namespace
    return SimpleNamespace(space=space, **space)


def calls_of(book, function, *args):
    """The `generate` calls that a notebook's function makes: (prompts, new tokens, rows)."""
    seen = []

    def generate(model, prompts, n, method="greedy", beams=1, samples=1, **_):
        seen.append((prompts, n, len(prompts) * max(beams, samples)))
        return list(torch.zeros(len(prompts) * samples, n, dtype=torch.long))

    kept = book.space["generate"]
    book.space["generate"] = generate
    try:
        function(*args)
    finally:
        book.space["generate"] = kept
    return seen


def largest(config, calls, **more):
    width = lambda prompts: 1 if isinstance(config, Seq2SeqConfig) else max(map(len, prompts))
    return max(memory.of_generation(config, rows, width(prompts), n, **more) for prompts, n, rows in calls)


def test_the_meter_counts():
    with memory.metered() as meter:
        x = torch.zeros(1000)
        y = x.view(10, 100) + 1
        del y
        y = x[:500].clone()
        assert meter.live == 4000 + 2000 and meter.peak == 8000
        del x, y
        assert meter.live == 0


def test_a_step_of_known_size():
    new = lambda: torch.nn.Linear(100, 100, bias=False)
    taken = memory.of_training(new, lambda model: model(torch.zeros(50, 100)).exp().sum(), bf16=False)
    kept = 4 * (4 * 100 * 100 + 2 * 50 * 100)  # weights, gradients, moments; the input and what exp made
    assert kept <= taken <= kept + 4 * 4 * 50 * 100


def test_generation_by_hand():
    config = SimpleNamespace(n_layers=2, n_kv_heads=3, head_dim=4, vocab_size=10)
    assert memory.of_generation(config, 5, 7, 20) == 5 * (1.5 * 27 * 2 * 4 * 24 + 320)
    whole = memory.of_generation(config, 100, 1, 2000)
    assert memory.of_generation(config, 100, 1, 2000, lengths=[300] * 9 + [2000]) < 0.4 * whole


def test_goldfish():
    book = space_of("goldfish", canaries=None)
    p = book.p
    T, V = p.text_tokens, p.vocab_size
    decoder = lambda width: DecoderConfig(V, width, p.n_layers, p.n_heads, p.n_heads, 8 * width // 3 // 16 * 16, T)
    wide = decoder(max(*p.widths, p.d_model))
    book.space["tokenizer"] = SimpleNamespace(decode=lambda ids: "")

    def loss_of(rows, tokens, vocab_size):
        def loss(model):
            ids = torch.randint(vocab_size, (rows, tokens))
            return book.goldfish_loss(model(ids).float(), ids, torch.ones_like(ids, dtype=torch.bool))[0]

        return loss

    text = lambda rows, tokens: torch.zeros(rows, tokens, dtype=torch.long)
    new = lambda: Decoder(wide)
    parts = {"training": memory.of_training(new, loss_of(p.batch, T, V), p.bf16)}
    parts["loss of texts"] = memory.of_reading(new, lambda model: book.nll(model, text(p.n_non_members, T)))
    book.space["canaries"] = canaries = text(p.n_canaries, T)
    calls = calls_of(book, book.recite, None, canaries, p.prefix_tokens, lambda ids: "")
    weights = lambda config: 4 * sum(w.numel() for w in Decoder(config).parameters())
    with torch.device("meta"):
        wide_weights = weights(wide)
    parts["reciting"] = wide_weights + largest(wide, calls)
    parts["beams"] = wide_weights + largest(decoder(p.d_model), calls_of(book, book.extracted, None))
    fit("goldfish", p.workers, parts)

    if p.extreme_model == "smollm2":
        smol = DecoderConfig(49152, 576, 30, 9, 3, 1536, 2048)  # SmolLM2-135M
        loss = loss_of(p.extreme_batch, p.extreme_tokens, smol.vocab_size)
        extreme = {"training": memory.of_training(lambda: Decoder(smol), loss, p.bf16)}
        texts = text(p.extreme_texts, p.extreme_tokens)
        calls = calls_of(book, book.recite, None, texts, p.extreme_prefix_tokens, lambda ids: "")
        with torch.device("meta"):
            extreme["reciting"] = weights(smol) + largest(smol, calls)
        fit("goldfish, extreme", min(p.workers, 3), extreme)


def test_transformer_fam():
    marks = {"KEY": 256, "ASK": 257, "FIRST": 258, "IGNORED": -100}
    book = space_of("transformer_fam", **marks)
    p, Arm = book.p, book.Arm
    book.space["vocab_size"] = 258 + p.symbols
    b, text = p.block_size, lambda rows, blocks: torch.zeros(rows, blocks * p.block_size, dtype=torch.long)

    def answer(penalised):
        def loss(model):
            ids, key = text(p.batch, p.longest), torch.zeros(2 * p.batch, dtype=torch.long)
            read = (
                book.read_in_stretches(model, ids, p.longest // 2) if penalised else (book.logits_of(model, ids)[0], 0)
            )
            return F.cross_entropy(read[0].flatten(0, 1), key) + (read[1].mean() if penalised else 0)

        return loss

    by_length = {n: Arm("fam", fam_length=n) for n in {p.fam_length, *p.fam_lengths, *p.fact_lengths} if n > 1}
    arms = {f"F = {n}": arm for n, arm in by_length.items()}
    arms |= {f"{M} segments": Arm("bswa", fam_length=0, memory_segments=M, penalty=0) for M in (2, 4)}
    arms |= {"rmt": Arm("rmt", "rmt"), "full": Arm("full", "full", penalty=0)}
    arms |= {"segment": Arm("segment", memory_segments=1), "no penalty": Arm("no-penalty", penalty=0)}
    arms["static query"] = Arm("static", options=(("static_query", True),))  # the scan as autograd sees it
    parts = {}
    for name, arm in arms.items():
        parts[name] = memory.of_training(lambda: book.new_model(arm), answer(arm.penalty > 0), p.bf16)
    rows = -(-p.test_texts // 10)
    fam = f"F = {p.fam_length}"
    for name in (fam, "4 segments", "rmt", "full"):
        arm = arms[name]
        multiple = max(p.multiples if name == fam else p.multiples[:4])
        length = pieces_of(book, arm, rows, multiple * p.longest)

        def read(model):
            state = None
            for _ in range(1 if arm.kind == "full" else 2):  # the second has a state to go on from
                state = book.logits_of(model, torch.zeros(rows, length, dtype=torch.long), state)[1]

        parts[f"reading {name}"] = memory.of_reading(lambda: book.new_model(arm), read)

    def books(model):
        return book.next_byte_loss(model, torch.zeros(p.book_batch, p.book_blocks * b + 1, dtype=torch.long)).sum()

    plain = Arm("books", fam_length=p.book_fam_length, memory_segments=1)
    parts["books"] = memory.of_training(lambda: book.new_model(plain, p.book_block_size), books, p.bf16)

    read_most = max(size for name, size in parts.items() if name.startswith("reading"))
    most = lambda *names: max(read_most, *(parts[name] for name in names))
    usual = [most(fam, "segment", "no penalty", "static query")] * p.workers
    of_length = lambda lengths: [parts[f"F = {max(n, min(by_length))}"] for n in lengths]
    pools = {  # what the notebook runs side by side
        "pass keys": [most("4 segments")] + [most(fam, "rmt", "full", "2 segments")] * p.workers,
        "ablations": of_length(p.fam_lengths) + usual,
        "studies": of_length(p.fact_lengths) * len(p.facts) + usual[:3],
        "books": [parts["books"]] * 4,
    }
    failed = []
    for name, at_once in pools.items():
        try:
            fit_together(f"transformer_fam, {name}", p.workers, parts, at_once)
        except AssertionError as error:
            failed.append(str(error))
    assert not failed, failed


def pieces_of(book, arm, rows, blocks):
    """Tokens of the longest piece in which the notebook reads texts of so many blocks."""
    seen = []
    kept, book.space["logits_of"] = (
        book.space["logits_of"],
        lambda model, ids, state=None: (
            seen.append(ids.shape[1]) or torch.zeros(rows, 2, 1),
            None,
        ),
    )
    try:
        with memory.metered():
            book.read_in_pieces(book.new_model(arm), torch.zeros(rows, blocks * book.p.block_size, dtype=torch.long))
    finally:
        book.space["logits_of"] = kept
    return max(seen)


def test_searchformer():
    book = space_of("searchformer")
    p, words = book.p, astar.vocabulary("maze", book.p.size)
    book.space |= {"words": words, "BOS": 0, "EOS": 1, "DIGIT": words.index("0"), "PLAN": words.index("plan")}
    book.space |= {"CELL": len(words), "PAD": len(words) + p.size**2 * p.whole_cells}
    book.space |= {"GROUP": {"prompt": 3, "trace": 5, "plan": 3}, "read": lambda *_: None}
    tasks = astar.generate("maze", p.size, 20_000, 0, deterministic=False)
    prompts, traces, plans = (list(map(len, book.encode(tasks, part))) for part in ("prompt", "trace", "plan"))
    longest = book.space["longest"] = int(1.25 * max(traces)) + 3 * p.size**2
    target = max(map(sum, zip(traces, plans))) + 2
    V, d_ff = book.space["PAD"] + 1, -(-8 * p.d_model // 3 // 16) * 16
    config = Seq2SeqConfig(V, p.d_model, p.n_layers, p.n_heads, d_ff, max_positions=longest + 2)

    def loss(model):
        batch = (torch.zeros(p.batch, size, dtype=torch.long) for size in (max(prompts) + 2, target))
        return book.loss_fn(model, tuple(batch))[0]

    parts = {"training": memory.of_training(lambda: Seq2Seq(config), loss, p.bf16)}
    calls = calls_of(book, book.rollouts_of, None, tasks[: p.test_mazes], p.samples)
    calls += calls_of(book, book.rollouts_of, None, tasks[: p.bootstrap_mazes], p.rollouts)
    lengths = [trace + plan + 1 for trace, plan in zip(traces, plans)]
    parts["sampling"] = largest(config, calls, lengths=lengths)
    fit("searchformer", p.workers, parts, worst=largest(config, calls))


def test_rest():
    book = space_of("rest", folder=None)
    p = book.p
    V = p.vocab_size + 2
    config = Seq2SeqConfig(V, p.d_model, p.n_layers, p.n_heads, 8 * p.d_model // 3 // 16 * 16, p.max_length + 1)
    book.space |= {
        "BOS": V - 2,
        "PAD": V - 1,
        "EOS": 0,
        "encode": lambda some: [torch.zeros(p.max_length).long()] * len(some),
    }

    def loss(model):
        ids = torch.zeros(p.batch, p.max_length, dtype=torch.long)
        return book.weighted_nll(model, (ids, ids, torch.ones(p.batch)))[0]

    parts = {"training": memory.of_training(lambda: Seq2Seq(config), loss, p.bf16)}
    some = ["a"] * p.sources
    parts["growing"] = largest(config, calls_of(book, book.rows_of, None, some[:200], 0, p.samples))
    parts["measuring"] = largest(config, calls_of(book, book.rows_of, None, some[: p.test_sentences], 0, 3))
    many = largest(config, calls_of(book, book.rows_of, None, some[: p.test_sentences // 6], 0, p.best_of_samples))
    fit("rest", p.workers, parts)
    fit("rest, best of N", min(p.workers, 2), {"the policy's": many, "ReST's": many * 8 / p.best_of_samples})
