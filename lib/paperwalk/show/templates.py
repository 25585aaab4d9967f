"""HTML from template files: this room's folder `assets`, and one of the same name beside a chapter's module."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from paperwalk.show.palette import PALETTE


@cache
def environment(folder: Path) -> Environment:
    """Jinja's, for the templates of a folder and of this room: text is escaped, and a colour is `palette.NAME`."""
    made = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent / "assets"]),
        autoescape=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    made.globals["palette"] = PALETTE
    made.filters |= {"css": in_css, "script": in_script}
    return made


def macros(name: str, module: str = __file__) -> Any:
    """The macros of the template `name` in the folder `assets` beside the module's file, as functions.

    They return Markup, in which whatever they are given is escaped that is not Markup itself.
    """
    return environment(Path(module).parent / "assets").get_template(name).module


def digest(*content: Any) -> str:
    """16 hex digits of the JSON-like content, so that ids repeat from run to run."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def in_script(data: Any) -> Markup:
    """The data as JSON in which no text can end the script around it."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("</", "<\\/").replace("<!--", "<\\u0021--"))


def in_css(text: str) -> Markup:
    """The text as a string of CSS, in which it can end neither the string nor the style around it."""
    return Markup('"{}"').format(Markup(re.sub(r"[^\w ,./:-]", lambda found: f"\\{ord(found[0]):x} ", text)))
