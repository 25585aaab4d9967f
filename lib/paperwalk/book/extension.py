"""Sphinx extension of the book: glossary definitions beside their terms, and lighter, more accessible pages.

A link made with the role {term} becomes, in the built page,

    <span class="pw-term"><a aria-describedby="ID">word</a><span role="tooltip" id="ID">definition</span></span>

and the style sheet shows the definition on hover and focus, so that neither a script nor a request is needed.
"""

from html import escape

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx_codeautolink.extension.block import CodeBlockAnalyser

from paperwalk.runs.files import WIDGETS

# Sphinx gives the list of references roles that its own content does not fit.
ROLES = {
    '<div role="list" class="citation-list">': '<div class="citation-list">',
    '<div class="citation-list" role="list">': '<div class="citation-list">',
    ' role="doc-biblioentry"': "",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx; to be listed after sphinx-mathjax-offline, whose choice of a file it changes."""
    app.config.mathjax_path = "mathjax/startup.js"  # loads the parts that mathjax3_config names
    CodeBlockAnalyser.depart_section = _depart_section
    app.connect("config-inited", launch_only_what_is_public)
    app.connect("doctree-resolved", add_definitions)
    app.connect("html-page-context", lighten, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _depart_section(analyser, section):
    """In place of sphinx-codeautolink's own, which stops at a section without a title; exercises have such."""
    if any(isinstance(child, nodes.title) for child in section.children) and analyser.title_stack:
        analyser.title_stack.pop()


def launch_only_what_is_public(app: Sphinx, config: Config) -> None:
    """Drops the launch buttons while the repository has no public address, for which the theme has no case."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)


def lighten(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Drops scripts that the page has no use for, and roles that do not fit."""
    body = context.get("body", "")
    for role, better in ROLES.items():
        body = body.replace(role, better)
    context["body"] = body

    def used(script):
        if "mathjax" in str(script.filename):
            return 'class="math' in body
        return script.attributes.get("type") != WIDGETS  # nothing in the page reads it

    context["script_files"][:] = filter(used, context["script_files"])


def add_definitions(app: Sphinx, page: nodes.document, docname: str) -> None:
    """Wraps every resolved {term} link of the page together with the definition that it leads to."""
    is_term = lambda link: any("std-term" in inline["classes"] for inline in link.findall(nodes.inline))
    links = [link for link in page.findall(nodes.reference) if is_term(link)]
    known = definitions(app.env) if links and app.builder.format == "html" else {}
    for number, link in enumerate(links if known else [], 1):
        address = link.get("refuri") or f"#{link['refid']}"
        name = f"definition-{number}"
        parts = [
            _raw(f'<a class="reference internal" href="{escape(address)}" aria-describedby="{name}">'),
            *link.children,
            _raw(f'</a><span role="tooltip" id="{name}">'),
            *(child.deepcopy() for child in known[address.partition("#")[2]]),
            _raw("</span>"),
        ]
        word = nodes.inline("", "", *parts, classes=["pw-term"])
        if next(word.findall(nodes.math), None):
            app.env.get_domain("math").data["has_equations"][docname] = True
        link.replace_self(word)


def definitions(env: BuildEnvironment) -> dict[str, list[nodes.Node]]:
    """{anchor of a term: content of its definition's first paragraph, with links replaced by their text}."""
    found: dict[str, list[nodes.Node]] = {}
    for docname in {docname for _, _, kind, docname, _, _ in env.get_domain("std").get_objects() if kind == "term"}:
        for term in env.get_doctree(docname).findall(nodes.term):
            paragraph = next(iter(term.parent[-1].findall(nodes.paragraph)), None)
            if paragraph is not None:
                for link in [*paragraph.findall(addnodes.pending_xref), *paragraph.findall(nodes.reference)]:
                    link.replace_self(link.children)
                found |= {anchor: paragraph.children for anchor in term["ids"]}
    return found


def _raw(text):
    return nodes.raw("", text, format="html")
