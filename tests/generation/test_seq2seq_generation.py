"""Generation from an encoder-decoder: cache, compaction and shared sources change nothing; exact log-probabilities."""

import itertools
import math

import pytest
import torch

from generation.tiny import BOS, EOS, METHODS, V, draws, lists
from generation.tiny import decoder as make_decoder
from generation.tiny import prompts_of as sources_of
from generation.tiny import seq2seq as make
from paperwalk.generation import choose_sample, generate, prefixes, sequence_log_probs

LENGTHS = {"one": (5,), "seven": (6,) * 7, "ragged": (3, 9, 1, 4, 9, 2, 7)}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("recorded", [False, True], ids=["growing", "fixed shapes"])
def test_cache_equals_recomputation(options, lengths, eos, recorded, monkeypatch):
    if recorded:  # all of the GPU's path but the recording itself
        monkeypatch.setattr(prefixes, "RECORDED_ON", ("cpu",))
    monkeypatch.setattr(prefixes, "RECORDED_CACHE_STEP" if recorded else "CACHE_STEP", 5)  # it grows twice
    model, sources = make(), sources_of(lengths)

    def run(use_cache):
        return lists(generate(model, sources, 12, bos=BOS, eos=eos, generator=draws(), use_cache=use_cache, **options))

    cached = run(True)
    assert cached == run(False)
    assert len(cached) == len(lengths) * options.get("samples", 1)
    for row in cached:
        if eos is None:
            assert len(row) == 12
        else:
            assert eos not in row[:-1] and (len(row) == 12 or row[-1] == eos)


def plain(model, source, steps, choose):
    """One row, the whole model at every step, no batch and no cache."""
    target = torch.tensor([[BOS]])
    for _ in range(steps):
        with torch.no_grad():
            token = choose(model(source[None], target)[:, -1])
        target = torch.cat((target, token[:, None]), 1)
        if token == EOS:
            break
    return target[0, 1:].tolist()


def test_greedy_takes_the_argmax_of_the_plain_forward_pass():
    model, sources = make(), sources_of((3, 9, 1, 4, 9, 2, 7))
    expected = [plain(model, source, 30, lambda logits: logits.argmax(-1)) for source in sources]
    assert lists(generate(model, sources, 30, bos=BOS, eos=EOS)) == expected
    assert len({len(row) for row in expected}) > 2, "rows must end at different steps for this test to bite"


@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("B", [1, 5])
def test_each_sample_is_drawn_as_if_alone(samples, B):
    """Row r of step n uses uniform number n R + r, whatever has ended before."""
    model, sources = make(), sources_of((3, 9, 1, 4, 6)[:B])
    R, steps = B * samples, 25
    uniform = torch.rand(steps, R, dtype=torch.float64, generator=draws())
    expected = []
    for r in range(R):
        own = iter(uniform[:, r : r + 1])
        expected.append(plain(model, sources[r // samples], steps, lambda x: choose_sample(x, uniform=next(own))))
    options = dict(method="sample", samples=samples, bos=BOS, eos=EOS, generator=draws())
    assert lists(generate(model, sources, steps, **options)) == expected
    assert R == 1 or len({len(row) for row in expected}) > 1


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("kind", ["seq2seq", "decoder"])
def test_compaction_changes_nothing(kind, samples, use_cache, monkeypatch):
    model, ends = (make(), dict(bos=BOS, eos=EOS)) if kind == "seq2seq" else (make_decoder(), dict(eos=EOS))
    sources = sources_of((3, 9, 1, 4, 9, 2, 7, 5, 5))
    read = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, *rest: (read.append(len(ids)), hidden(ids, *rest))[1])

    def run(at, **options):
        monkeypatch.setattr(prefixes, "COMPACT_AT", at)
        read.clear()
        return lists(generate(model, sources, 30, use_cache=use_cache, **ends, **options)), sum(read)

    for options in (dict(), dict(method="sample", samples=samples)):
        (never, all_rows), (now_and_then, some), (eagerly, fewest) = (
            run(at, **options, generator=draws()) for at in (0.0, 0.75, 0.999)
        )
        assert never == now_and_then == eagerly
        assert len(set(map(len, never))) > 2, "rows must end at different steps for this test to bite"
        assert fewest <= some < all_rows


KINDS = {"seq2seq": (make, dict(bos=BOS, eos=EOS)), "decoder": (make_decoder, dict(eos=EOS))}
MANY = (3, 9, 1, 4, 9, 2, 7, 5, 5)


@pytest.fixture
def steps(monkeypatch):
    """Recording is pretended on the CPU: the steps that were made, each a list of its calls' (rows, prompts that they
    belong to, capacity of the cache)."""
    made = []

    class Step(prefixes.RecordedStep):
        def __init__(self, *given):
            super().__init__(*given)
            self.reads, self.calls = self.addresses(), []
            made.append(self.calls)

        def addresses(self):
            memory = () if self.memory is None else (*self.memory.keys, *self.memory.values)
            padding = () if self.padding is None else (self.padding,)
            return [x.data_ptr() for x in (self.cache.keys, self.cache.values, self.cache.position, *padding, *memory)]

        def __call__(self, tokens):
            assert self.addresses() == self.reads, "a graph would read from where nothing is any more"
            self.calls.append((len(tokens), len(self.memory or tokens), self.cache.capacity))
            return super().__call__(tokens)

    append = prefixes.Prefixes.append

    def checked_append(prefixes, tokens):
        append(prefixes, tokens)
        assert prefixes.padding is prefixes.step.padding and prefixes.memory is prefixes.step.memory

    monkeypatch.setattr(prefixes.Prefixes, "append", checked_append)
    monkeypatch.setattr(prefixes, "RecordedStep", Step)
    monkeypatch.setattr(prefixes, "RECORDED_ON", ("cpu",))
    monkeypatch.setattr(prefixes, "RECORDED_CACHE_STEP", 7)
    return made


@pytest.mark.parametrize("make, ends", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("most", [30, 40])  # 40: all that fits
def test_a_recorded_step_serves_until_rows_leave_or_the_cache_grows(make, ends, options, most, steps):
    model, most = make(), most if make is not make_decoder else most - 9 + 1
    generate(model, sources_of(MANY), most, generator=draws(), **ends, **options)
    calls = [call for step in steps for call in step]
    assert calls and all(len(set(step)) == 1 for step in steps)
    assert len(steps) == 1 + sum(a != b for a, b in itertools.pairwise(calls))
    if options["method"] == "beam":
        assert len(calls) > 2 * len(steps) > 2 and len({rows for rows, _, _ in calls}) == 1


@pytest.mark.parametrize("make, ends", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("check", [1, 3, 8, 100])
def test_recorded_steps_and_rare_checks_change_nothing(make, ends, options, check, monkeypatch, request):
    """Neither the tokens nor what the generator gives to the next call."""
    model, sources = make(), sources_of(MANY)

    def run():
        generator, found = draws(), []
        for most in (30, 29, 5):
            found += lists(generate(model, sources, most, generator=generator, **ends, **options))
        return found, torch.rand(3, generator=generator).tolist()

    plain = run()
    assert len(set(map(len, plain[0]))) > 2, "rows must end at different steps for this test to bite"
    steps = request.getfixturevalue("steps")
    monkeypatch.setattr(prefixes, "RECORDED_CHECK_STEP", check)
    assert run() == plain
    assert steps


@pytest.mark.parametrize("make, ends", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("use", ["global", "own"])
def test_draws_of_steps_after_the_last_end_are_given_back(make, ends, use, steps):
    """The row ends between two checks."""
    model, sources, generator = make(), sources_of((5,)), None if use == "global" else draws()
    generator_used = generator or torch.default_generator
    shorter = 0
    for seed in range(12):
        generator_used.manual_seed(seed)
        row = generate(model, sources, 30, "sample", temperature=3.0, generator=generator, **ends)[0]
        after = torch.rand(2, generator=generator)
        generator_used.manual_seed(seed)
        for _ in row:
            torch.rand(1, dtype=torch.float64, generator=generator)
        assert torch.equal(after, torch.rand(2, generator=generator))
        shorter += len(row) < 30 and len(row) % 8 != 0
    assert shorter > 3, "rows must end early for this test to bite"


@pytest.mark.parametrize("make, ends", KINDS.values(), ids=KINDS)
def test_rows_that_ended_leave_before_the_cache_grows(make, ends, steps, monkeypatch):
    monkeypatch.setattr(prefixes, "RECORDED_COMPACT_AT", 0)  # they never leave otherwise
    generate(make(), sources_of(MANY), 30, "sample", samples=6, generator=draws(), **ends)
    calls = [call for step in steps for call in step]
    assert calls[-1][0] < calls[0][0] == 6 * len(MANY)
    assert all(a[2] < b[2] for a, b in itertools.pairwise(calls) if a[0] != b[0])
    assert any(rows == prompts for rows, prompts, _ in calls), "rows must part for this test to bite"


@pytest.mark.parametrize("make, ends", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("recorded", [False, True], ids=["growing", "fixed shapes"])
@pytest.mark.parametrize("most", [1, 2, 25])
def test_the_cache_has_no_room_for_more_than_is_read(make, ends, options, recorded, most, monkeypatch):
    if recorded:
        monkeypatch.setattr(prefixes, "RECORDED_ON", ("cpu",))
    model, caches = make(), []
    new = model.new_cache
    monkeypatch.setattr(model, "new_cache", lambda *given: caches.append(new(*given)) or caches[-1])
    found = generate(model, sources_of(MANY), most, generator=draws(), **(ends | dict(eos=None)), **options)
    assert len(found[0]) == most
    given = 9 if make is make_decoder else 1
    assert [cache.capacity for cache in caches] == [given + most - 1]  # the last token is not read


def test_the_source_is_encoded_once(monkeypatch):
    model, sources = make(), sources_of((3, 9, 1))
    encode, seen = model.encode, []
    monkeypatch.setattr(model, "encode", lambda ids, padding: (seen.append(len(ids)), encode(ids, padding))[1])
    for options in (dict(), dict(method="sample", samples=4), dict(method="beam", beams=4)):
        generate(model, sources, 8, bos=BOS, **options)
    assert seen == [3, 3, 3]


def test_decoder_reads_a_prompt_once_for_all_samples(monkeypatch):
    model, prompts, options = make_decoder(), sources_of((6, 3, 9)), dict(method="sample")
    repeated = [prompt for prompt in prompts for _ in range(4)]
    expected = lists(generate(model, repeated, 9, generator=draws(), **options))
    hidden, read = model.hidden, []
    monkeypatch.setattr(model, "hidden", lambda ids, *rest: (read.append(tuple(ids.shape)), hidden(ids, *rest))[1])
    assert lists(generate(model, prompts, 9, samples=4, generator=draws(), **options)) == expected
    assert read == [(3, 9)] + [(12, 1)] * 8


def test_padded_tensor_equals_list():
    model, sources = make(), sources_of((3, 9, 1, 4))
    sources = [source.clamp(min=1) for source in sources]
    sources[1][4] = 0  # a padding id within a source is a token like any other
    padded = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=0)
    expected = lists(generate(model, sources, 9, bos=BOS, eos=EOS))
    assert lists(generate(model, padded, 9, bos=BOS, eos=EOS, pad=0)) == expected
    assert lists(generate(model, padded, 9, bos=BOS, eos=EOS)) != expected
    full = torch.stack(sources_of((5, 5)))
    assert lists(generate(model, full, 6, bos=BOS)) == lists(generate(model, list(full), 6, bos=BOS, pad=0))


def test_what_is_generated_can_be_trained_on():
    model, source = make(), torch.stack(sources_of((5, 5)))
    target = torch.stack(generate(model, source, 6, bos=BOS))
    assert target.dtype == torch.long and not target.is_inference()
    model(source, target).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_room_to_the_last_position():
    model, source = make(max_positions=9), sources_of((9,))
    assert len(generate(model, source, 9, bos=BOS)[0]) == 9
    with pytest.raises(
        ValueError, match=r"max_new_tokens = 10: must be a whole number from 1 to 9 \(max_positions = 9"
    ):
        generate(model, source, 10, bos=BOS)


@pytest.mark.parametrize("eos, penalty", [(None, 0.0), (2, 0.0), (2, 1.0)])
def test_enough_beams_find_the_best_of_all_targets(eos, penalty):
    sources, steps = [torch.tensor([0, 2, 1]), torch.tensor([2])], 4
    tails = [tail for n in range(1, steps + 1) for tail in itertools.product(range(3), repeat=n)]
    ended = lambda tail: eos not in tail[:-1] and (len(tail) == steps or tail[-1] == eos)
    tails = [tail for tail in tails if (len(tail) == steps if eos is None else ended(tail))]
    greedy_misses = 0
    for seed in range(6):
        model = make(seed, vocab_size=3, scale=0.8)
        best = []
        for source in sources:
            with torch.no_grad():
                scores = sequence_log_probs(model, [source], [torch.tensor(tail) for tail in tails], bos=1)
            scores /= torch.tensor([len(tail) for tail in tails]) ** penalty
            best.append(list(tails[scores.argmax()]))
        options = dict(bos=1, eos=eos)
        assert lists(generate(model, sources, steps, "beam", beams=81, length_penalty=penalty, **options)) == best
        greedy_misses += lists(generate(model, sources, steps, **options)) != best
    assert greedy_misses > 0, "greedy found them all: the test cannot fail"


def test_log_probs_equal_a_naive_loop():
    model, sources = make(), sources_of((3, 9, 1))
    rows = generate(model, sources, 15, "sample", samples=4, bos=BOS, eos=EOS, generator=draws())
    assert len(set(map(len, rows))) > 1
    expected = []
    for r, row in enumerate(rows):
        total, target = 0.0, [BOS]
        for token in row.tolist():
            with torch.no_grad():
                logits = model(sources[r // 4][None], torch.tensor([target]))[0, -1]
            total += logits.log_softmax(-1)[token].item()
            target.append(token)
        expected.append(total)
    expected = torch.tensor(expected, dtype=torch.float64)
    found = sequence_log_probs(model, sources, rows, BOS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    pad = V - 1 if all(row[-1] != V - 1 for row in rows) else V - 2
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    torch.testing.assert_close(sequence_log_probs(model, sources, padded, BOS, pad), expected, rtol=0, atol=1e-10)


def test_log_probs_have_the_gradient_and_sum_to_one():
    model = make(vocab_size=3)
    tails = [torch.tensor(tail) for tail in itertools.product(range(3), repeat=4)]
    log_probs = sequence_log_probs(model, [torch.tensor([0, 2])], tails, bos=1)
    assert log_probs.shape == (81,)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    log_probs.exp().sum().backward()  # of the constant 1
    assert max(weight.grad.abs().max() for weight in model.parameters()) < 1e-10
    assert sequence_log_probs(model.bfloat16(), [torch.tensor([0])], tails[:3], bos=1).dtype == torch.float32


def test_draws_follow_the_softmax_and_never_leave_the_truncated_set():
    logits = torch.tensor([1.0, -0.5, 0.3, -math.inf, 2.0])
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    counts = choose_sample(logits.expand(100_000, -1), uniform=uniform).bincount(minlength=5) / 100_000
    torch.testing.assert_close(counts, logits.softmax(0), rtol=0, atol=2e-5)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert choose_sample(logits.roll(-1).expand(2, -1), uniform=ends).tolist() == [0, 4]
    assert choose_sample(logits.roll(1).expand(2, -1), top_k=2, uniform=ends).tolist() == [0, 1]
    assert choose_sample(logits[[3, 1, 4, 3]].expand(2, -1), uniform=ends).tolist() == [1, 2]


IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "sources, options, message",
    [
        (IDS, dict(bos=None), "bos = None: must be a token id from 0 to 10"),
        (IDS, dict(bos=11), "bos = 11: must be a token id from 0 to 10"),
        (IDS, dict(pad=-1), "pad = -1: must be None or a token id from 0 to 10"),
        (IDS, dict(pad="<pad>"), "pad = '<pad>': must be None or a token id"),
        (IDS, dict(pad=0), "prompts with a row of pad = 0 alone: must have a token in each row"),
        (IDS, dict(method="sample", samples=0), "samples = 0: must be a whole number of at least 1"),
        (IDS, dict(samples=2), "samples = 2: must be 1 with method 'greedy': only 'sample' uses it"),
        (IDS, dict(max_new_tokens=41), r"max_new_tokens = 41: must be a whole number from 1 to 40"),
        (IDS + 11, {}, r"prompts = \(11, 11\): must be ids from 0 to 10"),
        (torch.zeros(1, 41, dtype=torch.long), {}, "prompts = '41 tokens': must be at most 40 tokens long"),
        ([IDS[0], IDS[0, :0]], {}, r"prompts of shapes \[\(5,\), \(0,\)\]"),
    ],
)
def test_bad_arguments_are_named(sources, options, message):
    with pytest.raises(ValueError, match=message):
        generate(make(), sources, **{"max_new_tokens": 3, "bos": BOS, **options})


def test_a_decoder_takes_no_ends():
    model = make_decoder()
    for name in ("bos", "pad"):
        with pytest.raises(ValueError, match=f"{name} = 1: must be None: only a Seq2Seq uses it"):
            generate(model, IDS, 3, **{name: 1})
    with pytest.raises(ValueError, match="model = Decoder: must be a Seq2Seq"):
        sequence_log_probs(model, IDS, IDS, BOS)


@pytest.mark.parametrize(
    "continuations, options, message",
    [
        (IDS[:1], {}, "target of 1 rows: must be a multiple of the 2 sources"),
        (IDS + 11, {}, r"continuations = \(11, 11\): must be ids from 0 to 10"),
        (IDS.float(), {}, "continuations of dtype torch.float32: must be torch.int64"),
        ([], {}, "continuations of shapes .*: must be at least one 1-D tensor"),
        (IDS, dict(bos=-1), "bos = -1: must be a token id from 0 to 10"),
    ],
)
def test_bad_arguments_of_log_probs_are_named(continuations, options, message):
    with pytest.raises(ValueError, match=message):
        sequence_log_probs(make(), IDS, continuations, **{"bos": BOS, **options})
