"""What a notebook defines, without running its experiments: its setup cells, imports, functions and classes."""

import ast
import json
import types

from paperwalk import runs


def load(chapter: str, profile: str = "ci", **known) -> types.SimpleNamespace:
    """Names defined by the chapter's code cells, with `p` the profile's parameters and `known` as globals."""
    namespace = {"p": runs.check(chapter, runs.profile_values(chapter, profile)), **known}
    cells = json.loads(runs.notebook_path(chapter).read_text(encoding="utf-8"))["cells"]
    definitions = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef
    for cell in cells:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            if "setup" not in cell["metadata"].get("tags", []):
                tree.body = [node for node in tree.body if isinstance(node, definitions)]
            exec(compile(tree, f"{chapter}.ipynb", "exec"), namespace)
    return types.SimpleNamespace(namespace=namespace, **{k: v for k, v in namespace.items() if k.isidentifier()})
