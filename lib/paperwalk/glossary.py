"""Sphinx extension: puts a term's definition beside each link to it; the style sheet shows it on hover and focus.

A link made with the role {term} becomes, in the built page,

    <span class="pw-term"><a aria-describedby="ID">word</a><span role="tooltip" id="ID">definition</span></span>

so that neither a script nor a request is needed.
"""

from html import escape

from docutils import nodes
from sphinx import addnodes


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-resolved", add_definitions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_definitions(app, page, docname):
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
        link.replace_self(nodes.inline("", "", *parts, classes=["pw-term"]))


def definitions(env) -> dict[str, list[nodes.Node]]:
    """{anchor of a term: content of its definition's first paragraph, with links replaced by their text}."""
    found = {}
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
