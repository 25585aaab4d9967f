"""Numbers in a chapter's prose are the paper's, a setting's, or cited from results files: none was measured and typed.

Whatever looks like a measurement (a decimal, a percentage, "n of m", "n times") in the text, or in a sentence that code
shows, must stand in ALLOWED with the reason why it is none.
"""

import ast
import re

import pytest

from paperwalk import runs
from paperwalk.runs.files import read_notebook

NUMBER = re.compile(
    r"(?<![\w./#:{])(?<!\w-)(?:\d[\d,]*)?\.\d+(?!\w|\.\d)|\b\d[\d,]*(?:\.\d+)? ?(?:%|per ?cent\b)|"
    r"\b\d+ (?:out )?of (?:the )?\d+\b|\b\d+(?:\.\d+)?(?: times\b|x(?!\w))|(?<![\w.])\d+(?:\.\d+)?e[+-]?\d+\b"
)
GPU = "the share of a GPU's peak that costs assume, said to be an assumption"
RATE = "the rate of false positives at which attacks are compared"
PAPER = "the paper's"
HISTORY = "of superseded evidence, counted over two files that git keeps"
ALLOWED: dict[str, dict[str, str]] = {
    "goldfish": {
        "1.1": PAPER,
        "50 times": PAPER,
        "94.1": PAPER,
        "84 of 100": PAPER,
        "4e-4": PAPER,
        ".8": "arXiv 2405.15523's",
        ".95": "arXiv 2505.13171's; AdamW's second beta",
        ".4": "arXiv 2505.13171's",
        ".9": "AdamW's first beta",
        ".1": "weight decay",
        "5 %": "the criterion",
        "20 %": "what Min-K% means",
        ".5": "chance",
        "1 %": RATE,
        "40 %": GPU,
    },
    "legal_rag": {
        **dict.fromkeys(("33 %", "17 %", "18 %", "85.4", ".77"), PAPER),
        **dict.fromkeys((".17", ".33", ".43", ".21", ".44", ".47"), "shares of the paper's published counts"),
        "000 times": "20,000 draws from a posterior",
        "4.0": "a licence's version",
        "4.3": "a section of the paper",
        "1.1": "a licence's text",
    },
    "rest": {
        "40 %": GPU,
        "5 %": GPU,
        "0.7": PAPER,
        "0.99": PAPER,
        "1 of 440": HISTORY,
        "455 of 627": HISTORY,
    },
    "searchformer": {
        "26.8": PAPER,
        "2.5e-4": PAPER,
        "50 %": "the paper's share of walls",
        ".5": "the temperature asked for; half of the mazes",
        "40 %": GPU,
    },
    "transformer_fam": {
        "47.7": PAPER,
        "47.0": PAPER,
        "46.6": PAPER,
        "40 %": GPU,
        "80 %": "the criterion",
    },
}


def prose(markdown: str) -> str:
    """The text without code, directives' heads, roles, formulas and addresses."""
    text = re.sub(r"```\{code[^\n]*\n.*?```|^```[^\n]*$|^:[\w-]+:.*$", "", markdown, flags=re.S | re.M)
    text = re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", text, flags=re.S)
    return re.sub(r"\]\([^)]*\)|95 % (?=interval)", "]", text)


def sentences(code: str) -> list[str]:
    """Texts of at least five words in the code, docstrings included."""
    strings = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return [
        text.replace("95 % interval", "interval")
        for text in strings
        if isinstance(text, str) and len(text.split()) >= 5
    ]


def typed(chapter: str) -> list[tuple[str, str]]:
    """(number, the words around it) of the chapter's page."""
    texts = []
    for cell in read_notebook(runs.notebook_path(chapter))["cells"]:
        texts += [prose(cell["source"])] if cell["cell_type"] == "markdown" else sentences(cell["source"])
    around = lambda text, found: " ".join(text[max(0, found.start() - 50) : found.end() + 30].split())
    return [(found[0], around(text, found)) for text in texts for found in NUMBER.finditer(text)]


@pytest.mark.parametrize("chapter", runs.chapters())
def test_no_measured_number_is_typed(chapter):
    found = typed(chapter)
    strange = [(number, words) for number, words in found if number not in ALLOWED.get(chapter, {})]
    assert not strange
    assert ALLOWED.get(chapter, {}).keys() <= {number for number, _ in found}, "allowed, but not there"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("we found .87 of them", [".87"]),
        (
            "it fell by -0.31 nats, 12 percent, 3.5 per cent, 3 out of 4",
            ["0.31", "12 percent", "3.5", "3 out of 4"],
        ),
        ("2.5x as fast, 4x4 mazes, at a rate of 7e-3, in arXiv-0.5 and v1.2", ["2.5x", "7e-3"]),
        ("it rose to 0.87, by 12 %, in 3 of 4 runs, 2 times", ["0.87", "12 %", "3 of 4", "2 times"]),
        ("a {glue:text}`rouge.hash-4:.2f` of $k = 0.5$ and `h = 0.1`, [12 %](page.html#0.5), seed 100", ["12 %"]),
    ],
)
def test_what_is_taken_for_a_number(text, numbers):
    assert [found[0] for found in NUMBER.finditer(prose(text))] == numbers
