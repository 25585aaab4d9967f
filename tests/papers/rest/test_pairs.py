"""Parallel text: what is read, cleaned, refused and kept apart; and the packaged catalogues as they really are."""

import json
import sys
import types
import zipfile

import numpy as np
import pytest

from paperwalk.data import sources
from paperwalk.data.fetch import CorpusError
from paperwalk.papers.rest import pairs, prefetch
from paperwalk.papers.rest.pairs import Pair

SENTENCE = "Der Hund schläft im Garten", "The dog sleeps in the garden"


def numbered(n):
    words = np.random.default_rng(0).choice([f"{a}{b}" for a in "bdfgklmnprst" for b in "aeiou"], (n, 12))
    return [Pair(" ".join(row), " ".join(row[::-1])) for row in words]


def test_the_catalogues_are_sentences_in_two_languages_without_repeats():
    found = pairs.load("catalogues")
    assert 12_000 < len(found) < 25_000
    assert len({pair.digest for pair in found}) == len(found)
    german, english = (" ".join(side).lower().split() for side in zip(*found))
    assert german.count("die") > 100 * english.count("die") and english.count("the") > 100 * german.count("the")
    assert all(4 <= len(side.split()) <= 40 and "<" not in side for pair in found for side in pair)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\n words ", "two words"),
        ("%(count)s of %(total)d", "{count} of {total}"),
        ("%s is %d", "{} is {}"),
        ("100 % sure", "100 % sure"),
    ],
)
def test_cleaning_folds_space_and_placeholders(text, expected):
    assert pairs.clean(text) == expected


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        (*SENTENCE, True),
        ("Der Hund schläft", "The dog sleeps here", False),  # too short
        (SENTENCE[0], SENTENCE[1] * 9, False),  # lengths do not fit
        (SENTENCE[0], SENTENCE[0].upper(), False),  # not translated
        (SENTENCE[0] + " <b>", SENTENCE[1], False),  # markup
        (SENTENCE[0], SENTENCE[1] + " https://x.y", False),
    ],
)
def test_what_is_a_sentence(source, target, kept):
    assert pairs.is_sentence(Pair(source, target)) == kept


def test_sources_that_differ_in_numbers_and_placeholders_are_one():
    assert Pair("Noch 3 Tage  für {name}", "").digest == Pair("noch 15 Tage für {user}", "").digest
    assert Pair("Noch 3 Tage", "").digest != Pair("Noch 3 Wochen", "").digest


def test_splits_follow_content_and_keep_near_copies_out_of_later_parts():
    shares = {"test": 0.1, "dev": 0.1, "train": 0.8}
    some = numbered(1000)
    parts = pairs.split(some, shares)
    assert 60 < len(parts["test"]) < 140 and sum(map(len, parts.values())) == 1000
    again = pairs.split(some[::-1][:300], shares)
    assert set(again["test"]) <= set(parts["test"]) and set(again["train"]) <= set(parts["train"])
    copies = [Pair(pair.source + " noch", pair.target) for pair in parts["test"]]
    with_copies = pairs.split(some + copies, shares)
    assert set(with_copies["test"]) >= set(parts["test"])
    assert not set(with_copies["train"]) & set(copies) and not set(with_copies["dev"]) & set(copies)
    assert set(with_copies["train"]) == set(parts["train"])  # nothing else is lost
    with pytest.raises(ValueError, match="add up to 1"):
        pairs.split(some, {"test": 0.5, "train": 0.4})


def test_near_copies_are_found_as_by_comparing_all():
    texts = [pair.source for pair in numbered(60)]
    of = [text[: 20 + i] for i, text in enumerate(texts[:20])] + texts[20:25]
    grams = lambda text: {f"  {text.lower()} "[i : i + 4] for i in range(len(text))}
    jaccard = lambda a, b: len(grams(a) & grams(b)) / len(grams(a) | grams(b))
    expected = [max(jaccard(a, b) for b in of) > 0.5 for a in texts]
    assert pairs.near_copies(texts, of, 0.5).tolist() == expected and 5 < sum(expected) < 60
    assert pairs.near_copies([], of, 0.5).shape == (0,) and not pairs.near_copies(texts, [], 0.5).any()


def test_what_is_read_is_noted_even_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(sources.VARIABLE, str(tmp_path / "notes"))
    for _ in range(2):
        pairs.load("catalogues")
    assert sources.noted().keys() == {f"package {name}" for name in pairs.CATALOGUES}
    for name, side in zip(("de", "en"), SENTENCE):
        (tmp_path / name).write_text(side, encoding="utf-8")
    pairs.load(f"files:{tmp_path}/de:{tmp_path}/en")
    assert {f"file {tmp_path}/de", f"file {tmp_path}/en"} <= sources.noted().keys()


def test_the_catalogues_are_those_of_the_pins_and_of_the_reading(pins_and_source, monkeypatch):
    (pins, module), made = pins_and_source(pairs), []
    monkeypatch.setattr(pairs, "_catalogues", lambda: made.append(numbered(len(made) + 1)) or made[-1])
    number = lambda: len(pairs.load("catalogues"))
    assert number() == number() == 1
    for times, name in enumerate(pairs.CATALOGUES, 2):
        pins.write_text(pins.read_text().replace(f"{name}==", f"{name}==1"))
        assert number() == number() == times
    module.write_text(module.read_text() + "# read otherwise\n")
    assert number() == number() == len(pairs.CATALOGUES) + 2
    (file,) = prefetch.cached()
    assert json.loads(file.read_text(encoding="utf-8")) == [list(pair) for pair in made[-1]]


def test_own_files(tmp_path):
    for name, side in zip(("de", "en"), SENTENCE):
        (tmp_path / name).write_text(f"{side}\n{side}\nzu kurz\n", encoding="utf-8")
    source = f"files:{tmp_path}/de:{tmp_path}/en"
    assert pairs.load(source) == [Pair(*SENTENCE)]
    (tmp_path / "en").write_text("one line\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="have 3 and 1 lines"):
        pairs.load(source)
    (tmp_path / "en").unlink()
    with pytest.raises(CorpusError, match="both must be UTF-8 text files"):
        pairs.load(source)


@pytest.mark.parametrize("source", ["catalogue", "files:one", "hf:name", ""])
def test_unknown_sources_are_refused(source):
    with pytest.raises(CorpusError, match="must be 'catalogues', 'files:SOURCE:TARGET' or"):
        pairs.load(source)


@pytest.mark.parametrize(
    ("columns", "arguments"),
    [
        ({"translation": [dict(zip(("de", "en"), SENTENCE))]}, "de:en"),
        ({"a": [SENTENCE[0]], "b": [SENTENCE[1]]}, "a:b"),
    ],
)
def test_hugging_face_columns(monkeypatch, columns, arguments):
    class Rows(dict):
        _fingerprint = "of its content"

        @property
        def column_names(self):
            return list(self)

    fake = types.SimpleNamespace(load_dataset=lambda name, split: Rows(columns))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert pairs.load(f"hf:any:train:{arguments}") == [Pair(*SENTENCE)]
    if "a" in columns:
        with pytest.raises(CorpusError, match="column = 'c': must be one of a, b"):
            pairs.load("hf:any:train:a:c")


def field(tag, content):
    return bytes([tag]) + len(content).to_bytes(4) + content


def test_qm_catalogues_are_read_field_by_field(tmp_path):
    one = (
        field(3, "Hund".encode("utf-16-be")) + field(8, b"a comment") + field(6, b"dog") + field(7, b"Context") + b"\1"
    )
    plural = field(3, "Katze".encode("utf-16-be")) + field(3, "Katzen".encode("utf-16-be")) + field(6, b"cat") + b"\1"
    empty = bytes([3, 255, 255, 255, 255]) + field(6, b"bird") + b"\1"
    data = bytes(16) + field(0x42, b"hashes") + field(0x69, one + plural + empty) + field(0x2F, b"contexts")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("app/i18n/app_de.qm", data)
        wheel.writestr("app/i18n/app_fr.qm", data)
    with zipfile.ZipFile(tmp_path / "x.whl") as wheel:
        assert pairs._qm_catalogues(wheel) == [Pair("Hund", "dog"), Pair("Katze", "cat")]


def test_json_catalogues_are_aligned_by_their_keys(tmp_path):
    file = tmp_path / "x.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("app/translations/de.json", json.dumps({"a": {"b": "Hund"}, "only": "Katze"}))
        wheel.writestr("app/translations/en.json", json.dumps({"a": {"b": "dog", "c": "bird"}}))
    with zipfile.ZipFile(file) as wheel:
        assert pairs._json_catalogues(wheel) == [Pair("Hund", "dog")]
