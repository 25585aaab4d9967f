"""What the tests do with the pretended device: chapters' models, losses and measurements, at ci scale and untrained.

Runs in a process of its own (see `apart`), for it imports `pretended`.
"""

import functools
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chapters.definitions import load
from device import pretended
from device.pretended import device, waits
from paperwalk.data import corpora
from paperwalk.generation import generate, prefixes, sequence_log_probs
from paperwalk.kernels import astar
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig
from paperwalk.papers.rest.pairs import Pair
from paperwalk.training import TrainConfig, TrainingError, train
from training.tiny import Tiny, loss_fn, micro_batches


def waits_of_steps(model, batches, loss_fn, config=None, *_, steps=3, **__):
    """For how much the host waited in each step of a training but its last; called as `train` is."""
    marks = []
    lr = 1e-2 if config is None else config.lr
    counted = lambda step: marks.append(waits.total()) or batches(step)
    log = train(model, counted, loss_fn, TrainConfig(steps + 1, lr, seed=1), progress=False)
    assert all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in log)
    return np.diff(marks).tolist()


# --- the device itself ----------------------------------------------------------------------------


def mixed(name):
    """Must raise: a tensor of the host among those of the device."""
    x, host = torch.ones(3, 3, device=device), torch.ones(3, 3)
    ways = {
        "add": lambda: x + host,
        "host first": lambda: host * x,
        "matmul": lambda: x @ host,
        "in place": lambda: host.add_(x),
        "cat": lambda: torch.cat((x, host)),
        "embedding": lambda: F.embedding(torch.zeros(1, 1).long(), x),
        "gather": lambda: x.gather(1, torch.zeros(3, 1).long()),
        "scalar index": lambda: x.index_select(0, torch.tensor(0)),
        "indices of the device": lambda: host[torch.zeros(1, device=device).long()],
        "put": lambda: x.index_put_((torch.zeros(2).long(),), host[:2]),
        "where": lambda: torch.where(x > 0, x, host),
        "numpy": lambda: x.numpy(),
    }
    try:
        ways[name]()
    except (RuntimeError, TypeError) as error:
        return str(error)
    raise AssertionError(f"{name}: was let pass")


def allowed():
    """What CUDA lets pass passes, with the numbers of the CPU."""
    host = torch.arange(6.0).view(2, 3)
    x = host.to(device)
    assert x.device.type == pretended.NAME and x.shape == (2, 3)
    for ours, theirs in (
        (x * torch.tensor(2.0) + 1, host * 2 + 1),
        (x[torch.tensor([1, 0])], host[[1, 0]]),
        (x.new_zeros(2).index_put_((torch.tensor([1]),), torch.tensor(3.0)), torch.tensor([0.0, 3.0])),
        (torch.zeros_like(x).copy_(host), host),
        (torch.cat((x, x), 1).chunk(2, 1)[1].mul_(2), host * 2),
    ):
        assert ours.device.type == pretended.NAME and torch.equal(ours.cpu(), theirs)
    weight = host.clone().to(device).requires_grad_()
    (weight * x).sum().backward()
    assert torch.equal(weight.grad.cpu(), host)


def counted():
    """How often the host waits in each of some operations."""
    x = torch.arange(4.0, device=device)
    into = torch.zeros(4)
    ways = {
        "nothing": lambda: (x + 1).softmax(0),
        "to the device": lambda: torch.ones(3).to(device),
        "item": lambda: x[0].item(),
        "float": lambda: float(x.sum()),
        "tolist": lambda: x.tolist(),
        "cpu": lambda: x.cpu(),
        "copy": lambda: into.copy_(x),
        "if": lambda: bool((x > 0).any()),
        "nonzero": lambda: x.nonzero(),
        "mask": lambda: x[x > 1],
    }
    out = {}
    for name, way in ways.items():
        before = waits.total()
        way()
        out[name] = waits.total() - before
    return out


# --- training -------------------------------------------------------------------------------------


def tiny_steps(kept_there):
    """Waits a step of a model with two micro-batches a step, whose tokens are counted here or on the device."""
    batches = lambda step: [(x.to(device), y.to(device)) for x, y in micro_batches(step)]

    def loss(model, batch):
        x, y = batch
        return F.cross_entropy(model(x), y, reduction="sum"), (y != -100).sum() if kept_there else len(y)

    return waits_of_steps(Tiny().to(device), batches, loss)


def same_as_on_the_cpu():
    """Logs and weights of a training that clips, here and on the device, with a step that keeps nothing."""

    def run(where):
        model = Tiny().to(where)

        def batches(step):
            whole = [(x.to(where), y.to(where)) for x, y in micro_batches(step)]
            return whole if step != 1 else [(x, torch.full_like(y, -100)) for x, y in whole]

        log = train(model, batches, loss_fn, TrainConfig(4, 1e-2, clip=0.5), progress=False)
        return log, [p.detach().cpu() for p in model.parameters()]

    (log, weights), (ours, there) = run("cpu"), run(device)
    assert [row["kept"] for row in log] == [8, 0, 8, 8] and max(r["grad_norm"] or 0 for r in log) > 0.5
    for row, other in zip(log, ours, strict=True):
        assert row.keys() == other.keys()
        assert [*row.values()] == [value and pytest.approx(value, rel=1e-5) for value in other.values()]
    torch.testing.assert_close(weights, there, rtol=1e-6, atol=1e-7)


def not_finite():
    """A loss that is NaN raises in its own step and leaves the weights as they were before it."""
    model, before = Tiny().to(device), []

    def batches(step):
        before.append([p.detach().cpu() for p in model.parameters()])
        return [(x.to(device), y.to(device)) for x, y in micro_batches(step)]

    def loss(model, batch):
        value, kept = loss_fn(model, batch)
        return (value * np.nan if len(before) == 3 else value), kept

    try:
        train(model, batches, loss, TrainConfig(5, 1e-2), progress=False)
    except TrainingError as error:
        assert "step 2" in str(error)
        assert all(map(torch.equal, before[2], (p.detach().cpu() for p in model.parameters())))
        assert not all(map(torch.equal, before[1], before[2]))
        return
    raise AssertionError("nothing was raised")


# --- generation -----------------------------------------------------------------------------------

HOW = {
    "greedy": {},
    "sample": {"method": "sample", "samples": 3, "temperature": 0.7, "top_k": 9, "top_p": 0.9},
    "beam": {"method": "beam", "beams": 4, "length_penalty": 0.5},
}


def generated(kind, method, steps):
    """Continuations on the device are those of the CPU; steps: "eager", or "fixed", of the shapes that are recorded."""
    prefixes.RECORDED_ON = (pretended.NAME,) if steps == "fixed" else ()
    torch.manual_seed(0)
    if kind == "decoder":
        model, ends = Decoder(DecoderConfig(20, 16, 2, 4, 2, 32, 40)), {}
    else:
        model, ends = Seq2Seq(Seq2SeqConfig(20, 16, 2, 2, 32, 40)), {"bos": 18, "pad": 19}
    prompts = [torch.randint(18, (n,)) for n in (3, 7, 7, 5)]

    def said_on(where, eos):
        how = HOW[method] | ({"generator": torch.Generator(where).manual_seed(1)} if method == "sample" else {})
        rows = generate(model.to(where).double(), prompts, 20, eos=eos, **ends, **how)
        assert {row.device.type for row in rows} == {torch.device(where).type}
        return [row.tolist() for row in rows]

    eos = said_on("cpu", None)[1][6]  # one that will be met
    here, there = said_on("cpu", eos), said_on(device, eos)
    assert here == there and min(map(len, here)) < 8
    if kind == "seq2seq":
        rows = [torch.tensor(row) for row in here]
        log_probs = lambda where: sequence_log_probs(model.to(where), prompts, rows, **ends).detach().cpu()
        torch.testing.assert_close(log_probs(device), log_probs("cpu"))


# --- chapters -------------------------------------------------------------------------------------


@functools.cache
def goldfish():
    space = load("goldfish", device=device, cuda=True).namespace
    p, g = space["p"], torch.Generator().manual_seed(0)
    draw = lambda rows, length: torch.randint(p.vocab_size, (rows, length), generator=g)
    long = draw(p.n_canaries, p.text_tokens + p.shift)
    spell = lambda ids: " ".join(map(str, ids))
    space |= {"long_canaries": long, "canaries": long[:, p.shift // 2 :][:, : p.text_tokens], "folder": Path()}
    space |= {"stream": draw(60, p.text_tokens), "validation": draw(p.validation_rows, p.text_tokens)}
    space |= {"non_members": draw(p.n_non_members, p.text_tokens), "canary_order": torch.arange(999) % p.n_canaries}
    decode_batch = lambda rows: [spell(row) for row in rows]
    space["tokenizer"] = SimpleNamespace(decode=spell, decode_batch=decode_batch)
    return SimpleNamespace(space=space, **space)


@functools.cache
def transformer_fam():
    KEY, ASK, FIRST = 256, 257, 258
    known = {"KEY": KEY, "ASK": ASK, "FIRST": FIRST, "IGNORED": -100, "device": device, "cuda": False}
    space = load("transformer_fam", **known).namespace
    text = torch.randint(256, (9000,), generator=torch.Generator().manual_seed(0))
    space |= {"vocab_size": FIRST + space["p"].symbols, "train_text": text, "test_text": text, "folder": Path()}
    space["adam"] = {}
    return SimpleNamespace(space=space, **space)


@functools.cache
def searchformer():
    space = load("searchformer", device=device, cuda=False).namespace
    p, words = space["p"], astar.vocabulary("maze", space["p"].size)
    space |= {"words": words, "BOS": 0, "EOS": 1, "DIGIT": words.index("0"), "PLAN": words.index("plan")}
    space |= {"CELL": len(words), "PAD": len(words) + p.size**2 * p.whole_cells, "folder": Path()}
    space["GROUP"] = {"prompt": 3, "trace": 5, "plan": 3}
    tasks = astar.generate("maze", p.size, 60, 0, deterministic=False)
    space |= {"seen_by": {"fixed": tasks, "coin": tasks}, "test_set": tasks[:6]}
    space["longest"] = int(1.25 * max(map(len, space["encode"](tasks, "trace")))) + 3 * p.size**2
    return SimpleNamespace(space=space, **space)


@functools.cache
def rest():
    space = load("rest", device=device, cuda=False, folder=Path()).namespace
    sides = ("das haus ist alt", "the house is old"), ("ein buch ist neu", "a book is new")
    pairs = [Pair(f"{a} {i}", f"{b} {i}") for i in range(12) for a, b in sides]
    tokenizer = corpora.train_tokenizer([corpora.Document("", side) for pair in pairs for side in pair], 270)
    V = space["p"].vocab_size = tokenizer.get_vocab_size()
    space |= {"tokenizer": tokenizer, "EOS": tokenizer.token_to_id("<|end|>"), "BOS": V, "PAD": V + 1}
    space |= {"pairs": pairs, "dev": space["sides"](pairs[:6])}
    return SimpleNamespace(space=space, **space)


LOG = [{"step": 0, "validation": 0.0, "supervised": 1}]  # what goldfish reads of the last row
CHAPTERS = {f.__name__: f for f in (goldfish, transformer_fam, searchformer, rest)}


@contextmanager
def changed(book, **names):
    """Other things under the notebook's names, for a while."""
    kept = {name: book.space[name] for name in names}
    book.space.update(names)
    try:
        yield
    finally:
        book.space.update(kept)


def chapter_steps(chapter, arm, function="trained"):
    """Waits a step of an arm's training, with the chapter's own model, batches and loss."""
    book, waited = CHAPTERS[chapter](), []
    with changed(book, train=lambda *given, **_: waited.extend(waits_of_steps(*given)) or LOG):
        getattr(book, function)(*(book.pairs, 4) if chapter == "rest" else [book.Arm("device", **arm)])
    return waited


@contextmanager
def untrained(book):
    """The chapter's `trained` and `cloned` give new models: a checkpoint cannot be written on this device."""
    with changed(book, train=lambda *_, **__: LOG):
        yield


def goldfish_measures():
    """Each function that reads a model, on one of the device."""
    book = goldfish()
    p, standard = book.p, book.Arm("standard", None)
    with untrained(book):
        outcomes, kept = book.measure(book.Arm("hash"))
        scores = book.membership_scores(book.trained(standard)[0].eval(), book.canaries)
        found = book.extracted(book.trained(standard)[0].eval())
    nothing = set(outcomes["exact_match"].values()) | set(outcomes["early_exact_match"].values())
    assert nothing == {0.0} and not found.any()
    assert len(outcomes["validation_loss"]) == p.validation_rows and kept["curve"] == [(1, 1, 0.0)]
    assert all(score.shape == (p.n_canaries,) and score.isfinite().all() for score in scores.values())


def fam_measures():
    book = transformer_fam()
    p, arm = book.p, book.Arm("fam")
    with untrained(book):
        for kind in ("fam", "rmt", "full"):
            model = book.trained(book.Arm(kind, kind))[0]
            assert 0 <= book.accuracy(model, 2) <= 1
            assert 0 <= book.accuracy(model, 3, book.several(1), anywhere=True) <= 1
            ids = torch.randint(256, (2, 5 * p.block_size)).to(device)
            assert book.read_in_pieces(model, ids, blocks=2).shape == (2, 2, book.vocab_size)
        named = book.study(book.Arm("other-layer", penalty=0))[0]["key_named_x1"]
        assert len(named) == p.test_texts == len(book.study(book.Arm("facts", facts=2))[0]["fact_named"])
        out, inside = book.study(arm)  # on the CPU
        assert np.isfinite([of[""] for of in out.values()]).all()
        assert len(inside["gradients"]) == 10 * p.longest - 1 == len(inside["norms"]) - 1
        assert len(inside["on_key"]) == len(inside["idle"]) == p.n_layers
        out, kept = book.read_books(book.Arm("books"))
        assert len(out["late_loss"]) == p.book_passages and len(kept["by_block"]) == 8 * p.book_blocks
        assert np.isfinite(kept["by_block"]).all()
        taken, _ = book.stream(book.new_model(arm), 10 * p.block_size, p.block_size, torch.Generator())
        assert len(taken) == 10


def searchformer_measures():
    book = searchformer()
    tasks = book.test_set
    with untrained(book):
        model = book.trained(book.Arm("trace"))[0]
        greedy, sampled = book.rollouts_of(model, tasks), book.rollouts_of(model, tasks, 2)
        forced = book.forced(model)
    assert [len(each) for each in greedy] == [1] * len(tasks) and [len(each) for each in sampled] == [2] * len(tasks)
    assert len(forced) == min(100, len(tasks)) and set(forced.values()) <= {0, 1}


def rest_measures():
    book = rest()
    sources, targets = book.sides(book.pairs[:6])
    with untrained(book):
        model, other = book.cloned(book.pairs, book.p.warmup), book.new_model(1)
    for rows in (book.rows_of(model, sources), book.rows_of(model, sources, 3, 2)):
        assert len(rows) % len(sources) == 0 and {row.device.type for row in rows} == {pretended.NAME}
    assert len(book.translate(model, sources, 3, 2)) == 12
    judge = book.RoundTrip(other)
    scores = judge(sources, targets)
    assert scores.shape == (6,) and ((scores > 0) & (scores < 1)).all()
    assert book.divergence(model, other, sources, book.rows_of(model, sources, 3, 2)) > 0
    data = book.Grown(sources, targets, np.ones(6, bool), scores, np.ones(6))
    book.p.improve_steps = 2
    for better in (
        book.improve(model, data, judge),
        book.improve(model, data, judge, book.gold_loss),
        book.reinforce(model, sources, judge, 1),
    ):
        assert book.rows_of(better, sources[:1])[0].device.type == pretended.NAME


def forgotten():
    """Must raise: a chapter's loss whose batch nobody moved to the device, and a measurement on two devices."""
    book, said = goldfish(), []
    loss = lambda model, ids: book.goldfish_loss(model(ids), ids, torch.ones_like(ids, dtype=torch.bool))
    fam = transformer_fam()
    for way in (
        lambda: chapter_steps_of(book, loss),
        lambda: fam.gradient_by_distance(fam.new_model(fam.Arm("fam")), 3),  # which is for models of the CPU
    ):
        try:
            way()
        except RuntimeError as error:
            said.append(str(error))
    return said


def chapter_steps_of(book, loss):
    arm = book.Arm("device")
    with untrained(book):
        model = book.trained(arm)[0]
    return waits_of_steps(model, lambda step: [book.rows(arm, step)], loss)
