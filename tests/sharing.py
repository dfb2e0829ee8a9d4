"""Which files of a project have been looked at before, in another project, with all they need.

Projects share most of their files, byte for byte. What pyright says of a file, and what a test
says, is decided by the file, by what it imports, at any depth, by the packages that they import,
and by Python. Where all of that is the same, it is looked at once.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

__all__ = ["Ledger", "Tree"]

# A test with one of these looks at more of the project than it imports.
_LOOKS_ABOUT = re.compile(
    r"\b(?:bootstrap|start_app|import_module|importlib|find_spec|subprocess|executable|__file__"
    r"|multiprocessing|pexpect|glob|iterdir)\b"
)
# It imports what applications need, and gives it to tests that name it.
_FIXTURES = "llmgine.testing.fixtures"


@cache
def _imports(text: str) -> frozenset[str]:
    """Every name that a module imports, and what a name may be part of."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in found]
    return frozenset(".".join(each[:end]) for each in parts for end in range(1, len(each) + 1))


class Tree:
    """A project's Python files, and what each of them needs.

    Args:
        folder: the project.
        packages: the distributions that bring each top-level package, with their versions.
    """

    def __init__(self, folder: Path, packages: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self._packages = packages
        self._texts = {
            path: path.read_text("utf-8")
            for room in ("libs", "apps", "tests", "tools")
            for path in sorted((folder / room).rglob("*.py"))
        }
        self._modules = dict(self._named())

    def _named(self) -> Iterator[tuple[str, Path]]:
        for path in self._texts:
            _, found, inner = path.relative_to(self._folder).as_posix().partition("/src/")
            if found:
                yield inner.removesuffix(".py").removesuffix("/__init__").replace("/", "."), path
            elif path.parent == self._folder / "tools/spine":
                yield path.stem, path

    def files(self) -> list[Path]:
        """Every Python file."""
        return [*self._texts]

    def tests(self) -> list[Path]:
        """Every file of tests."""
        return [path for path in self._texts if path.name.startswith("test_")]

    def _reached(self, starts: Iterable[Path], *, past: str = "") -> tuple[set[Path], set[str]]:
        """The files that these import, at any depth, and the names that no file of them has."""
        files, names, waiting = set[Path](), set[str](), [*starts]
        while waiting:
            path = waiting.pop()
            if path in files:
                continue
            files.add(path)
            for name in _imports(self._texts[path]) - {past}:
                if name in self._modules:
                    waiting.append(self._modules[name])
                else:
                    names.add(name)
        return files, names

    def _around(self, path: Path) -> list[Path]:
        """The file, and the fixtures that pytest brings it."""
        folders = [folder / "conftest.py" for folder in path.parents]
        return [path, *(each for each in folders if each in self._texts)]

    def key(self, path: Path) -> str:
        """A name for a file with all that it imports."""
        files, names = self._reached(self._around(path))
        digest = hashlib.sha256(str(path.relative_to(self._folder)).encode())
        for each in sorted(files):
            digest.update(f"\n{each.relative_to(self._folder)}\n{self._texts[each]}".encode())
        for name in sorted(names):
            # One of a project's own that is missing is told from one of a package.
            digest.update(
                f"\n{name} {sorted(self._packages.get(name.partition('.')[0], []))}".encode()
            )
        return digest.hexdigest()

    def looks_about(self, path: Path) -> bool:
        """Whether a test looks at more of the project than it imports."""
        spine = self._folder / "libs/llmgine/tests"
        if not path.is_relative_to(spine):
            return True
        reached, _ = self._reached([path], past=_FIXTURES)
        inner = [each for each in self._around(path) if each.parent != spine]
        return any(_LOOKS_ABOUT.search(self._code(each)) for each in reached.union(inner))

    def _code(self, path: Path) -> str:
        """A module without its comments and docstrings."""
        return _code(self._texts[path])


@cache
def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    return ast.unparse(tree)


class Ledger:
    """What has passed, by what was done and by the names of files."""

    def __init__(self) -> None:
        self._passed: set[tuple[str, str]] = set()

    def missing(self, what: str, keys: Mapping[Path, str]) -> list[Path]:
        """The files that haven't passed yet."""
        return [path for path, key in keys.items() if (what, key) not in self._passed]

    def passed(self, what: str, keys: Iterable[str]) -> None:
        """Keep that these have passed."""
        self._passed |= {(what, key) for key in keys}
