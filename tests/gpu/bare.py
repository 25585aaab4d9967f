"""Makes this machine look like a bare one: packages outside packages.txt cannot be imported from where they are
installed here. Put as `sitecustomize.py` on a program's path, it holds for all that the program starts."""

import importlib.machinery
import importlib.metadata
import os
import re
import sys
from pathlib import Path


def installed(lines: list[str]) -> dict[str, set[str]]:
    """{top-level name of a module: packages installed here that bring it}, for packages that the machine lacks.

    It has those of the lines, and what their versions of here need: its own versions may need something else. A line
    that begins with `!` names a package that it lacks all the same.
    """
    needs, modules = {}, {}
    for distribution in importlib.metadata.distributions():
        name = plain(distribution.metadata["Name"])
        wanted = (line for line in distribution.requires or [] if "extra ==" not in line)
        needs[name] = {plain(re.match(r"[\w.-]+", line)[0]) for line in wanted}
        for file in distribution.files or []:
            if len(file.parts) > 1 or file.suffix == ".py":
                modules.setdefault(file.parts[0].removesuffix(".py"), set()).add(name)
    lacking = {plain(line[1:]) for line in lines if line.startswith("!")}
    listed, more = set(), {plain(line) for line in lines if line.strip() and line[0] not in "#!"}
    while more:
        listed |= more
        more = set().union(*(needs.get(name, set()) for name in more)) - listed - lacking
    return {module: names for module, names in modules.items() if not names & (listed | {"paperwalk"})}


def plain(name):
    """A package's name as packages are compared."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


class Bare(importlib.machinery.PathFinder):
    """Finds what `installed` names only outside `folder`, as among carried packages; who asks is told that it is not
    installed, as a bare machine says it: some packages look for others and go on without them."""

    def __init__(self, hidden, folder):
        self.hidden, self.folder = hidden, folder

    def find_spec(self, fullname, path=None, target=None):
        if path is None and fullname in self.hidden:
            path = [place for place in sys.path if not place.startswith(self.folder)]
        return super().find_spec(fullname, path, target)


if __name__ == "sitecustomize":
    listed = Path(os.environ["PAPERWALK_BARE"]).read_text(encoding="utf-8").splitlines()
    bare = Bare(installed(listed), sys.prefix)
    sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = bare
