"""The definitions of the ReST notebook, taken out of it and tested on tiny cases."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chapters.definitions import load
from paperwalk.data import corpora
from paperwalk.papers.rest import comparisons, judge_checks
from paperwalk.papers.rest.pairs import Pair

PAIRS = [
    Pair("das haus ist alt", "the house is old"),
    Pair("das buch ist neu", "the book is new"),
    Pair("ein buch ist alt", "a book is old"),
    Pair("ein haus ist neu", "a house is new"),
]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    known = {"device": torch.device("cpu"), "cuda": False}
    space = load("rest", **known).namespace
    documents = [corpora.Document("", side) for pair in PAIRS for side in pair]
    tokenizer = corpora.train_tokenizer(documents, 270)
    space["p"].vocab_size, space["p"].samples = tokenizer.get_vocab_size(), 3
    V = space["p"].vocab_size
    space |= {"tokenizer": tokenizer, "EOS": tokenizer.token_to_id("<|end|>"), "BOS": V, "PAD": V + 1}
    space |= {"folder": tmp_path_factory.mktemp("checkpoints"), "parts": {"policy": PAIRS}}
    space |= {"dev": [[pair.source for pair in PAIRS], [pair.target for pair in PAIRS]], "adam": {}}
    space["space"] = space
    return SimpleNamespace(**space)


def grown(notebook, reward, human=None, sources=None):
    n = len(reward)
    human = np.zeros(n, bool) if human is None else np.array(human)
    sources = [f"s{i}" for i in range(n)] if sources is None else sources
    return notebook.Grown(sources, [f"t{i}" for i in range(n)], human, np.array(reward, float), np.ones(n))


# The filter


def test_the_filter_is_strict_and_people_must_pass_it_too(notebook):
    data = grown(notebook, [0.1, 0.5, 0.5, 0.9], human=[True, True, False, False])
    passed = notebook.above(data, 0.5)
    assert passed.targets == ["t3"] and not passed.human.any() and passed.reward.tolist() == [0.9]
    assert notebook.above(data, 0.49).human.tolist() == [True, False, False]


def test_thresholds_rise_lie_above_the_mean_and_come_from_raw_rewards(notebook):
    reward = np.r_[np.zeros(50), np.arange(1, 51)] * 7.0  # no scale is assumed
    taus = notebook.taus_of(grown(notebook, reward), [0.0, 0.5, 0.9])
    assert (np.diff(taus) > 0).all() and taus[0] > reward.mean()
    np.testing.assert_allclose(taus, np.quantile(reward[reward > reward.mean()], [0.0, 0.5, 0.9]))


def test_thresholds_are_those_of_the_whole_grow_not_of_what_passed(notebook):
    data = grown(notebook, np.arange(100.0))
    notebook.p.thresholds = [0.0, 0.5, 0.9]
    taus = notebook.taus_of(data, notebook.p.thresholds)
    sizes = [len(notebook.by_threshold(data, i).sources) for i in range(3)]
    assert sizes == [(data.reward > tau).sum() for tau in taus] and sizes[0] > sizes[1] > sizes[2] > 0


def test_a_constant_reward_is_refused_and_the_data_stay(notebook):
    data = grown(notebook, [0.4, 0.4, 0.4])
    with pytest.raises(ValueError, match=r"all are 0\.4; no threshold"):
        notebook.taus_of(data, [0.0, 0.5])
    with pytest.raises(ValueError, match=r"tau = 0\.4: nothing passes; the largest reward is 0\.4"):
        notebook.above(data, 0.4)
    assert len(data.sources) == 3 and data.reward.tolist() == [0.4] * 3


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number_is_refused_at_once(notebook, strange):
    with pytest.raises(ValueError, match="reward: 1 of 3 are no finite numbers"):
        grown(notebook, [0.1, strange, 0.3])


def test_no_sources_are_refused(notebook):
    with pytest.raises(ValueError, match="must be at least one sentence"):
        grown(notebook, [])


def test_the_percentile_is_each_sources_own(notebook):
    reward = [*range(10), *range(100, 110)]
    data = grown(notebook, reward, sources=["easy"] * 10 + ["hard"] * 10)
    passed = notebook.by_percentile(data, 0)
    assert passed.reward.tolist() == [8, 9, 108, 109]
    assert notebook.by_percentile(data, 1).reward.tolist() == [9, 109]


def test_one_sample_a_source_leaves_a_percentile_nothing_to_choose(notebook):
    with pytest.raises(ValueError, match="above the source's percentile: nothing passes"):
        notebook.by_percentile(grown(notebook, [0.1, 0.7, 0.3]), 0)


def test_equal_samples_leave_nothing_to_choose_either(notebook):
    data = grown(notebook, [0.5] * 6, sources=["a"] * 3 + ["b"] * 3)
    with pytest.raises(ValueError, match="nothing passes"):
        notebook.by_percentile(data, 0)
    assert notebook.best_each(data, 0).sources == ["a", "b"]  # a best one there is


def test_raft_takes_the_best_sample_of_each_source_and_no_human(notebook):
    data = grown(notebook, [9, 1, 3, 8, 2, 4], human=[True, False, False, True, False, False], sources=[*"aaabbb"])
    assert notebook.best_each(data, 0).targets == ["t2", "t5"]


def test_rest_em_has_thresholds_of_its_samples_alone(notebook):
    notebook.p.thresholds = [0.0, 0.5, 0.9]
    data = grown(notebook, [100.0, 1.0, 2.0, 3.0, 4.0], human=[True] + [False] * 4)
    passed = notebook.drawn_by_threshold(data, 0)
    assert not passed.human.any() and passed.reward.tolist() == [4.0]


def test_weights_are_one_on_average_and_rise_with_the_reward(notebook):
    weight = notebook.by_weight(grown(notebook, [0.1, 0.2, 0.9]), 0).weight
    assert weight.mean() == pytest.approx(1) and (np.diff(weight) > 0).all()
    assert notebook.by_weight(grown(notebook, [0.3] * 4), 0).weight.tolist() == [1.0] * 4


# Losses


def model(notebook, seed=0):
    return notebook.new_model(seed).eval()


def batch_of(notebook, sources, targets, weights):
    padded = lambda rows: notebook.padded(notebook.encode(rows), notebook.PAD)
    return padded(sources), padded(targets), torch.tensor(weights)


def test_the_loss_is_the_negative_log_likelihood_times_the_weight(notebook):
    policy, sources, targets = model(notebook), ["das haus", "ein altes buch"], ["the house", "an old book"]
    rows = notebook.encode(targets)
    log = notebook.sequence_log_probs(policy, notebook.encode(sources), rows, bos=notebook.BOS, pad=notebook.PAD)
    total, count = notebook.weighted_nll(policy, batch_of(notebook, sources, targets, [1.0, 3.0]))
    torch.testing.assert_close(total, -(log * torch.tensor([1.0, 3.0])).sum())
    assert count == sum(map(len, rows))


def test_gold_weighs_a_tokens_gradient_by_its_probability(notebook):
    policy = model(notebook)
    batch = batch_of(notebook, ["das haus"], ["the house"], [1.0])
    rows = notebook.encode(["the house"])[0]
    into = torch.cat((torch.tensor([notebook.BOS]), rows[:-1]))[None]
    log = policy(batch[0], into).log_softmax(-1)[0, torch.arange(len(rows)), rows]
    expected = -(log * log.detach().exp().clamp(min=0.1)).sum()
    torch.testing.assert_close(notebook.gold_loss(policy, batch)[0], expected)


def test_batches_show_every_row_once_before_any_comes_again(notebook):
    notebook.p.batch = 4
    texts = [f"{'a' * (1 + i % 5)} {i}" for i in range(20)]
    batches = notebook.batches_of(texts, texts, 0, weights=range(20))
    seen = [int(weight) for step in range(5) for weight in batches(step)[0][2]]
    assert sorted(seen) == list(range(20)) and seen != list(range(20))
    source, target, weight = batches(7)[0]
    shown = notebook.decode([row[row != notebook.PAD] for row in target])
    assert shown == [texts[int(i)] for i in weight] and torch.equal(source, target)
    assert torch.equal(batches(7)[0][2], weight)


# Judges


def test_the_dictionary_learns_which_word_means_which(notebook):
    dictionary = notebook.Dictionary(PAIRS)
    table = dictionary.table("das haus", "the house")
    assert table.shape == (2, 2) and table[0, 0] > 0.8 and table[1, 1] > 0.8 and table[0, 1] < 0.2
    assert notebook.word_by_word(dictionary, "ein haus ist fremd") == "a house is fremd"
    of_each = np.bincount(dictionary.links // len(dictionary.e), dictionary.t)
    np.testing.assert_allclose(of_each, 1)
    assert not dictionary.table("unbekannt haus", "house unknown")[[0, 0, 1], [0, 1, 1]].any()


@pytest.mark.parametrize("pair", [("", ""), ("", "the"), ("das", ""), ("unbekannt", "unknown")])
def test_judges_give_finite_scores_for_empty_and_unknown_text(notebook, pair):
    judges = [notebook.Coverage(PAIRS), notebook.Quality(PAIRS * 10, 0), notebook.RoundTrip(model(notebook))]
    for judge in judges:
        score = judge([pair[0]], [pair[1]])
        assert score.shape == (1,) and np.isfinite(score).all()


def test_coverage_can_be_exploited_and_only_rises_with_more_words(notebook):
    coverage = notebook.Coverage(PAIRS)
    short, long, twice = coverage(["das haus"] * 3, ["the", "the house a old book new", "the the"])
    assert long > short == twice


def test_the_round_trip_is_the_mean_probability_of_a_source_token(notebook):
    policy = model(notebook)
    source, target = notebook.encode(["das haus ist alt"]), notebook.encode(["the house"])
    log = notebook.sequence_log_probs(policy, target, source, bos=notebook.BOS, pad=notebook.PAD)
    score = notebook.RoundTrip(policy)(["das haus ist alt", "ein"], ["the house", "a"])
    assert score[0] == pytest.approx(float((log.detach() / len(source[0])).exp()), rel=1e-5)


def test_damage_is_none_at_share_nought_and_keeps_the_text_a_text(notebook):
    g = np.random.default_rng(0)
    shares = []
    for _ in range(50):
        text, share = notebook.damaged("das haus ist alt", "the house is old", g, ["a book"])
        assert 0 <= share <= 1 and text
        shares += [share] * (text == "the house is old")
    assert max(shares) < 0.5  # what stays as it was had little damage


# Growing and going on after a kill


def test_grow_draws_so_many_of_every_source_and_takes_up_what_it_had(notebook, tmp_path, monkeypatch):
    policy, sources, drawn = model(notebook), [f"das haus {i}" for i in range(7)], []
    real = notebook.space["translate"]

    def counting(model, sentences, *arguments, **options):
        drawn.extend(sentences)
        if len(drawn) > 4:
            raise KeyboardInterrupt
        return real(model, sentences, *arguments, **options)

    whole = notebook.grow(policy, sources, tmp_path / "whole", 5, shard=2)
    assert len(whole) == 7 * 3
    monkeypatch.setitem(notebook.space, "translate", counting)
    with pytest.raises(KeyboardInterrupt):  # killed in the third of four shards
        notebook.grow(policy, sources, tmp_path / "killed", 5, shard=2)
    monkeypatch.setitem(notebook.space, "translate", lambda *a, **k: drawn.append("again") or real(*a, **k))
    assert notebook.grow(policy, sources, tmp_path / "killed", 5, shard=2) == whole
    assert drawn.count("again") == 2 and len(list((tmp_path / "killed").iterdir())) == 4


def test_one_sample_a_source_and_an_empty_source(notebook, tmp_path):
    notebook.p.samples = 1
    try:
        policy = model(notebook)
        drawn = notebook.grow(policy, ["das haus", ""], tmp_path, 0)
        assert len(drawn) == 2
        data = notebook.scored(notebook.Coverage(PAIRS), PAIRS[:2], drawn)
        assert data.human.tolist() == [True, True, False, False] and data.sources[:2] == data.sources[2:]
    finally:
        notebook.p.samples = 3


def test_a_policy_is_read_from_its_file_and_made_only_once(notebook, tmp_path):
    made = []

    def make():
        made.append(1)
        return model(notebook, seed=4)

    first = notebook.kept(tmp_path / "arm" / "policy.safetensors", make)
    again = notebook.kept(tmp_path / "arm" / "policy.safetensors", make)
    assert made == [1]
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_loop_takes_rising_thresholds_and_grows_from_the_carried_policy(notebook, tmp_path, monkeypatch):
    notebook.p.thresholds, notebook.p.samples = [0.0, 0.5], 3
    chosen, from_policies, grown_from = [], [], []

    def improve(policy, data, judge, loss=None):
        from_policies.append(policy)
        chosen.append(float(data.reward.min()))
        return model(notebook, seed=len(from_policies))

    def grow(policy, sources, where, seed):
        grown_from.append(policy)
        return [f"{source} {i}" for source in sources for i in range(3)]

    monkeypatch.setitem(notebook.space, "improve", improve)
    monkeypatch.setitem(notebook.space, "grow", grow)
    judge = lambda sources, targets: np.arange(len(sources)) % 7 / 7.0
    first = notebook.scored(judge, PAIRS, [f"{pair.source} {i}" for pair in PAIRS for i in range(3)])
    base = model(notebook)
    steps = list(notebook.rest(base, judge, first, tmp_path, improves=(2, 1), carry=1))
    assert [(g, i) for g, i, _, _ in steps] == [(0, 0), (0, 1), (1, 0)]
    assert chosen[0] < chosen[1]
    assert from_policies[0] is base and grown_from == [steps[0][3]] and from_policies[2] is steps[0][3]
    with_restart = [each[3] for each in notebook.rest(base, judge, first, tmp_path / "em", improves=(2,), restart=True)]
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {
        f"{step}.safetensors" for step in ("g1i1", "g1i2", "g2i1")
    }
    assert len(with_restart) == 2 and from_policies[3] is base and from_policies[4] is base


def test_improve_keeps_the_better_of_two_stations_by_the_dev_reward(notebook):
    notebook.p.improve_steps, notebook.p.batch = 4, 4
    data = notebook.scored(notebook.Coverage(PAIRS), PAIRS)
    rewards = iter([0.9, 0.1])
    policy = model(notebook)
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    half = notebook.improve(policy, data, lambda sources, targets: np.array([next(rewards)]))
    rewards = iter([0.1, 0.9])
    full = notebook.improve(policy, data, lambda sources, targets: np.array([next(rewards)]))
    distance = lambda model: sum((weight - before[name]).abs().sum() for name, weight in model.state_dict().items())
    assert 0 < distance(half) < distance(full)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())


def test_reinforce_raises_its_reward(notebook):
    notebook.p.batch, notebook.p.improve_lr, notebook.p.kl_weight = 16, 0.01, 0.0
    policy, sources = model(notebook), [pair.source for pair in PAIRS]
    share = lambda text: sum(c in "abcdefghijklmnop" for c in text) / max(len(text), 1)
    judge = lambda sources, texts: np.array([share(text) for text in texts])
    mean = lambda policy: judge(None, notebook.translate(policy, sources * 5, seed=1, samples=4)).mean()
    trained = notebook.reinforce(policy, sources, judge, steps=15)
    assert mean(trained) > mean(policy) + 0.1


# Measures


def test_best_of_n_takes_the_judges_favourite_among_the_first_n(notebook):
    rows, scores = [["a", "b", "c"], ["d", "e", "f"]], [[1, 3, 9], [5, 4, 3]]
    assert notebook.best_of(rows, scores, 1) == ["a", "d"]
    assert notebook.best_of(rows, scores, 2) == ["b", "d"]
    assert notebook.best_of(rows, scores, 3) == ["c", "d"]


def test_the_divergence_is_nought_from_itself_and_positive_otherwise(notebook):
    one, other = model(notebook), model(notebook, seed=9)
    sources = ["das haus", "ein buch ist neu"]
    rows = notebook.rows_of(one, sources, seed=0, samples=3)
    assert notebook.divergence(one, one, sources, rows) == pytest.approx(0, abs=1e-6)
    source, into = notebook.encode(sources[:1])[0][None], torch.tensor([[notebook.BOS]])
    p, q = (each(source, into)[0, 0].log_softmax(-1).detach() for each in (one, other))
    single = notebook.divergence(one, other, sources[:1], [rows[0][:1]])
    assert single == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4) and single > 0


def test_survival_counts_people_above_each_threshold(notebook):
    data = grown(notebook, [0, 10, 20, 30, 40, 50], human=[True, False, True, False, True, False])
    taus = notebook.taus_of(data, [0.0, 0.5])  # the mean is 25: 30, 40, 50 lie above it; thresholds 30 and 40
    found = [
        (tau, passes.tolist(), share) for tau, passes, share in comparisons.survival(data.reward, data.human, taus)
    ]
    assert found == [("i1", [False, False, True], 0.5), ("i2", [False, False, False], 0.0)]
    assert not list(comparisons.survival(data.reward, data.human, [50]))  # nothing passes, so there is no share


def test_auc_is_the_mean_share_of_the_bad_below_each_of_the_good():
    good, bad = np.array([0.2, 0.5, 0.9]), np.array([0.5, 0.1, 0.7, 0.3])
    shares = judge_checks.auc(good, bad)
    assert shares.tolist() == [0.25, 0.625, 1.0]
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    assert shares.mean() == pytest.approx(np.mean(pairs))


def test_the_commonest_words_come_first():
    assert judge_checks.commonest(["The house", "the old house the"], 2) == "the house"


def test_outcomes_are_named_by_their_sentence_whatever_its_place(notebook, monkeypatch):
    outputs = [pair.target for pair in PAIRS[:2]] + ["no", "a house"]
    judges = {"length": lambda sources, texts: np.array([len(text) / 100 for text in texts])}
    monkeypatch.setitem(notebook.space, "judges", judges)
    monkeypatch.setitem(notebook.space, "gold_judge", judges["length"])

    def scored(order):
        some = [PAIRS[i] for i in order]
        monkeypatch.setitem(notebook.space, "parts", {"test": some})
        monkeypatch.setitem(notebook.space, "test", notebook.sides(some))
        return notebook.scores_of([outputs[i] for i in order])

    found, turned = scored(range(4)), scored([2, 0, 3, 1])
    assert {measure: turned[measure] == found[measure] for measure in found if "" not in found[measure]} == {
        "reward_length": True,
        "gold": True,
        "sentence_chrf": True,
        "sentence_bleu": True,
    }
    assert list(found["sentence_chrf"].values())[:2] == [100, 100] > list(found["sentence_chrf"].values())[2:]
    assert found["reward_length"][PAIRS[2].digest[:12]] == 2 and 0 < found["chrf"][""] < 100
    assert list(notebook.of_test([1.0])) == notebook.named([PAIRS[2]])  # fewer values: the first sentences


def test_policies_are_found_again_by_their_names(notebook, monkeypatch):
    policy = model(notebook, seed=5)
    monkeypatch.setitem(notebook.space, "base", "the cloned one")
    notebook.kept(notebook.folder / "rest-em" / "g1i2.safetensors", lambda: policy)
    again = notebook.policy_of("rest-em-g1i2")
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), policy.parameters(), strict=True))
    assert notebook.policy_of("bc") == "the cloned one"


def test_a_grows_data_are_written_whole_or_not_at_all(notebook, tmp_path):
    notebook.grow(model(notebook), ["das haus"], tmp_path, 0)
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())) == 3 and replace(grown(notebook, [1.0])) is not None
