"""Questions of law with exact keys, generated from the records of `paperwalk.papers.legal_rag.law`.

The plan of a question set (book/legal_rag/questions.yml) says how each template is put and how many there are. A key is
a claim of its package: only those are asked for that a second path confirms, and none that the question gives away.
"""

import collections
import hashlib
import random
import re
from dataclasses import dataclass
from functools import cache

from paperwalk.data.fetch import CorpusError
from paperwalk.papers.legal_rag import law

Candidate = tuple[str, str, tuple[str, ...]]  # subject, id of its record, keys


@dataclass(frozen=True)
class Question:
    """answer: the kind of value that is asked for (year, place, provision, owner, name, citation); keys: accepted
    values, none where the premise is false; subject: id of the record that holds them; twin: of a false premise, the id
    of the question that is put alike and has an answer."""

    id: str
    template: str
    category: str
    text: str
    answer: str
    keys: tuple[str, ...]
    subject: str
    twin: str = ""

    @property
    def item(self) -> str:
        """What its outcomes are recorded under, whatever its phrasing: category/template/hash of what it asks about."""
        return f"{self.category}/{self.id}"


def places(text: str, plan: dict) -> list[str]:
    """The states, territories and countries of the plan that a text names, in order."""
    return _pattern(tuple(plan["countries"])).findall(text)


@cache
def _pattern(countries):
    names = sorted({*law.states().values(), *countries}, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b")


def words(text: str) -> set[str]:
    """The words of three letters and more, in small letters."""
    return set(re.findall(r"\w{3,}", text.lower()))


def place_of_law(record: law.Record, plan: dict) -> str | None:
    """The one place whose law governs a licence, by two readings of the clause that must agree; else None."""
    clause = record.facts["clause"]
    after = re.search(r"\blaws?\b[^,;]{0,25}?\bof (?:the )?(?:\w+ [Rr]epublic of |\w+ of )?([A-Z].*)", clause)
    found = set(places(clause, plan))
    return found.pop() if len(found) == 1 and after and after[1].startswith(tuple(found)) else None


def _texts_of_law(kinds, plan):
    """(template, subject, record id, keys) from the Constitution and the licences."""
    for entry in plan["provisions"]:
        holding = [r for r in kinds["provision"] if entry["phrase"].lower() in r.text.lower()]
        if len(holding) == 1 and holding[0].title.startswith(entry["key"]):  # second path: the phrase, there alone
            yield "provision", entry["says"], holding[0].id, (entry["key"],)
    for r in kinds["licence"]:
        owner, place = r.facts["owner"], place_of_law(r, plan)
        if r.facts["mentions"] and owner != "Unspecified" and not words(owner) & words(r.title):
            yield "owner", r.title, r.id, (owner, owner.split(" (")[0])  # second path: the text names its owner
        if place and place not in r.title + owner:
            yield "law", r.title, r.id, (place,)


def _courts_and_reporters(kinds, plan):
    """The same from courts-db and reporters-db."""
    from reporters_db import STATE_ABBREVIATIONS

    courts = {r.facts["id"]: r for r in kinds["court"]}
    homes = collections.defaultdict(set)  # a county's name may stand in several states
    for r in kinds["court"]:
        homes[r.title.split()[0]].add(r.facts["place"])
    editions = {(r.facts["name"], r.facts["edition"]): r for r in kinds["reporter"]}
    for r in kinds["court"]:
        f, parent = r.facts, courts.get(r.facts["parent"])
        alone = len(homes[r.title.split()[0]]) == 1 and f["place"] in law.states().values()
        if parent and alone and parent.facts["place"] == f["place"] and f["place"] not in r.title:
            yield "court-place", r.title, r.id, (f["place"],)  # second path: the court above it
        if parent and f["end"] and parent.facts["end"] == f["end"]:
            yield "court-end", r.title, r.id, (str(f["end"]),)
        if f["citation"] and any(full == f["place"] and a in f["citation"] for a, full in STATE_ABBREVIATIONS.items()):
            yield "court-cite", r.title, r.id, (f["citation"],)  # second path: the state's abbreviation
    for r in kinds["reporter"]:
        f, following = r.facts, editions.get((r.facts["name"], r.facts["edition"] + 1))
        if following and f["end"] and following.facts["start"] and 0 <= following.facts["start"] - f["end"] <= 1:
            yield "reporter-end", r.title, r.id, (str(f["end"]),)  # second path: the next series begins then
        if f["place"] and f["place"] in f["name"] and not words(r.title) & words(f["name"]):
            yield "reporter-name", r.title, r.id, (f["name"],)  # second path: the courts that it reports


def _judges_and_cases(kinds, plan):
    """The same from the judges' portraits and the passages on cases."""
    for r in kinds["judge"]:
        if all(name.lower() in r.facts["portrait"].lower() for name in r.title.split()):
            yield "judge-born", r.title, r.id, (str(r.facts["born"]),)  # the portrait's title confirms the name
    for r in kinds["case"]:
        if r.facts.get("decided") in r.facts.get("years", []):
            yield "case-year", r.title, r.id, (str(r.facts["decided"]),)  # second path: our list against the passage


def candidates(records: list[law.Record], plan: dict) -> dict[str, list[Candidate]]:
    """Candidates of each template; subjects that two records share are left out."""
    kinds = {kind: [r for r in records if r.kind == kind] for kind in law.KINDS}
    shared = collections.Counter(r.title for r in records)
    found = collections.defaultdict(list)
    for source in (_texts_of_law, _courts_and_reporters, _judges_and_cases):
        for template, subject, record_id, keys in source(kinds, plan):
            if template == "provision" or shared[subject] == 1:
                found[template].append((subject, record_id, keys))
    return dict(found)


def rank(*parts: str) -> str:
    """A fixed hash (hex), to order by."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def chosen(found: dict[str, list[Candidate]], template: str, n: int, held_out: bool, most: int = 6) -> list[Candidate]:
    """The first n candidates by hash, at most `most` with the same key. A quarter of all subjects is held out."""
    picked: list[Candidate] = []
    keys = collections.Counter[tuple[str, ...]]()
    for candidate in sorted(found.get(template, ()), key=lambda c: rank(template, c[0])):
        out = rank(candidate[0])[0] in "0123"
        if out == held_out and keys[candidate[2]] < most and len(picked) < n:
            keys[candidate[2]] += 1
            picked.append(candidate)
    return picked


def _made_up(template, found, records, twin, taken, plan):
    """The subject of a false premise, made of real parts and known to no record; None without parts to make it of."""
    fakes, judges = plan["fakes"], found.get("judge-born", [])
    if template == "overruling":
        return (twin[0],)
    if template == "dissent":  # a real judge who was a child, unborn or long dead when the case was decided
        year = int(twin[2][0])
        options = sorted(c[0] for c in judges if not year - 110 < int(c[2][0]) < year - 20)
        return (twin[0], options[int(rank(twin[0])[:8], 16) % len(options)]) if options else None
    rng = random.Random(rank(template, twin[1]))
    series = [r.facts["editions"][0] for r in records if r.kind == "reporter" and len(r.facts["editions"]) > 1]
    make = {
        "judge-unknown": lambda: " ".join(rng.choice(judges)[0].split()[part] for part in (0, 1)),
        "court-unknown": lambda: f"{rng.choice(fakes['counties'])} County {rng.choice(fakes['courts'])}",
        "licence-unknown": lambda: rng.choice(fakes["licences"]).format(rng.choice(found["owner"])[2][1]),
        "reporter-unknown": lambda: f"{rng.choice(series)} {rng.choice(fakes['series'])}",
    }[template]
    while (name := make()) in taken:
        pass
    taken.add(name)
    return (name,)


def ask(records: list[law.Record], plan: dict, seed: int, held_out: bool = False, share: float = 1.0) -> list[Question]:
    """The plan's questions on the records; the seed draws their phrasings, and nothing else.

    held_out: of the quarter of subjects that is set apart, for tuning. share: of the plan's counts, at least one of
    each template. Raises CorpusError where the records give no occasion for any question.
    """
    found, rng = candidates(records, plan), random.Random(seed)
    asked, used, twins, taken = [], {}, {}, {r.title for r in records}

    def add(template, subject, candidate, category=None, twin=""):
        entry = plan["templates"][template]
        phrasings = entry.get("phrasings") or plan["templates"][entry["twin"]]["phrasings"]
        _, record_id, keys = candidate
        name = f"{template}/{rank(template, *subject)[:8]}"
        text = rng.choice(phrasings).format(*subject)
        question = Question(name, template, category or entry["category"], text, entry["answer"], keys, record_id, twin)
        asked.append(question)
        return name

    for template, n in plan["counts"].items():
        used[template] = max(1, round(share * n))
        for candidate in chosen(found, template, used[template], held_out):
            add(template, candidate[:1], candidate)
    for template, n in plan["pairs"].items():
        n, of = max(1, round(share * n)), plan["templates"][template]["twin"]
        start = 0 if of == "case-year" else used.get(of, 0)
        for candidate in chosen(found, of, start + n, held_out)[start:]:
            if candidate[1] not in twins:
                twins[candidate[1]] = add(of, candidate[:1], candidate, "true premise")
            if (template, candidate[0]) == ("overruling", "Dred Scott v. Sandford"):
                continue  # an amendment undid it: whether it was overruled is a matter of words
            if subject := _made_up(template, found, records, candidate, taken, plan):
                add(template, subject, ("", "", ()), twin=twins[candidate[1]])
        used[of] = start + n
    if not asked:
        raise CorpusError("corpus: no record has the facts that a question could be made of")
    return asked


def balanced(questions: list[Question], n: int) -> list[Question]:
    """n of the questions, five at least: a fifth of each true category, of the false premises, and their twins."""
    by_category = collections.defaultdict(list)
    for q in sorted(questions, key=lambda q: rank("subset", q.id)):
        by_category[q.category].append(q)
    false = by_category["false premise"][: n // 5]
    twins = {q.twin for q in false}
    few = [q for c in ("general", "jurisdiction", "recall") for q in by_category[c][: n // 5]] + false
    few += [q for q in by_category["true premise"] if q.id in twins]
    rest = [q for c in ("jurisdiction", "general", "recall") for q in by_category[c][n // 5 :]]
    return (few + rest)[: max(n, 5)]
