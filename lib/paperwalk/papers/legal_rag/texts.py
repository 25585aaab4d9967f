"""What stands in a text: its sentences, years, judges, provisions of the Constitution, and cases.

Case citations are found by `eyecite` and by a pattern of our own, since eyecite silently passes over reporters that do
not exist.
"""

import re

NUMERALS = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
NUMBER = {n: i for names in (NUMERALS, ORDINALS) for i, n in enumerate(names, 1)}
YEAR = re.compile(r"\b(?:1[5-9]\d\d|20[0-4]\d)\b")
PROVISION = re.compile(r"\b(Article|Amendment) (\w+)(?:, (?:Section|§) ?(\d+))?|\b(\w+) Amendment\b")
JUDGE = re.compile(r"\b(?:Judge|Justice) ([A-Z][a-z]+ (?:[A-Z]\. )?[A-Z][a-z]+)")
REPORTED = re.compile(r"\b\d+ ([A-Z][\w.' ]{0,20}?\.? ?(?:\dd|\d?(?:st|nd|rd|th))?) \d+\b")
SENTENCE = re.compile(r"(?<=[.;]) (?=(?:It|Its|Category|Governing|The|No|In|He|This|All|Each|If|But|United) )")


def sentences(text: str) -> list[str]:
    """The sentences of a record (abbreviations end none)."""
    return SENTENCE.split(text)


def folded(text: str) -> str:
    """The text in small letters, with one space for all that is no letter, digit, & or +."""
    return " ".join(re.sub(r"[^\w&+]+", " ", text.lower()).split())


def provisions(text: str) -> set[tuple[str, int, str | None]]:
    """(article or amendment, number, section or None) of every provision that a text names."""
    found = set()
    for part, numeral, section, ordinal in PROVISION.findall(text):
        said = numeral if part else ordinal.lower()
        number = NUMBER.get(said) or int("0" + re.sub(r"\D", "", said))
        if number:
            found.add(("article" if part == "Article" else "amendment", number, section or None))
    return found


def unknown_cases(text: str, known: dict) -> list[str]:
    """Case citations that name no reporter, or no volume and page that the corpus holds.

    known: `reporters`, the set of abbreviations that reporters-db has, and `texts`, the folded texts of all cases.
    """
    import eyecite

    found = [c.matched_text() for c in eyecite.get_citations(text) if type(c).__name__ == "FullCaseCitation"]
    found += [m[0] for m in REPORTED.finditer(text) if "." in m[1] and m[1].strip() not in known["reporters"]]
    return [c for c in dict.fromkeys(found) if folded(c) not in known["texts"]]
