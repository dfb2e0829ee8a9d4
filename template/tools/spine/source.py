"""The template that the project was made from: its versions, and renders of them."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from project import Answers, Git, SpineError, run_uv

__all__ = ["Release", "Source", "order"]

COPIER = "copier>=9.19.1,<10"
_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)(?:[-._]?(?P<stage>a|alpha|b|beta|c|rc|dev)[-._]?(?P<number>\d*))?"
    r"(?:-(?P<after>\d+)-g[0-9a-f]+)?"
)
_STAGES = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3}
_FINAL = 4

Release = tuple[tuple[int, ...], int, int, int]


def order(version: str) -> Release | None:
    """What versions are compared by, none for what is no version.

    `v1.2.0-3-gabc1234`, as git describes the third commit after a version, comes after it.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    numbers = [int(number) for number in found["release"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    stage = _STAGES[found["stage"]] if found["stage"] else _FINAL
    return tuple(numbers), stage, int(found["number"] or 0), int(found["after"] or 0)


def _address(source: str) -> str:
    """Where git finds what Copier's short forms stand for."""
    for short, host in (("gh:", "https://github.com"), ("gl:", "https://gitlab.com")):
        if source.startswith(short):
            path = source.removeprefix(short).removeprefix("/").removesuffix(".git")
            return f"{host}/{path}.git"
    plain = source.removeprefix("git+")
    return str(Path(plain).expanduser()) if plain.startswith("~") else plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the template lies: an address, a folder, a bare repository or a bundle.

    Attributes:
        address: as git takes it.
        folder: the project's, where commands run.
    """

    address: str
    folder: Path

    @classmethod
    def of(cls, answers: Answers) -> "Source":
        """The source that the answers name."""
        return cls(address=_address(answers.source), folder=answers.root)

    def references(self, kinds: str = "tags|heads") -> list[str]:
        """The names of versions and branches.

        Args:
            kinds: `tags` for versions alone.

        Raises:
            SpineError: the source can't be reached.
        """
        done = Git(folder=self.folder).run("ls-remote", "--quiet", "--", self.address)
        if done.returncode:
            raise SpineError(
                f"the template can't be reached at {self.address}: check the network, or write"
                " where it lies now into `_src_path` of the answers file"
            )
        listed = done.stdout.decode(errors="replace")
        names = re.findall(rf"\trefs/(?:{kinds})/(\S+)$", listed, re.MULTILINE)
        return [name for name in names if not name.endswith("^{}")]

    def newest(self, current: str) -> str | None:
        """The newest version; a pre-release only for projects that are made from one."""
        now = order(current)
        pre = now is not None and now[1] < _FINAL
        tags = self.references("tags")
        ordered = [(at, name) for name in tags if (at := order(name)) is not None]
        usable = [(at, name) for at, name in ordered if pre or at[1] == _FINAL]
        return max(usable)[1] if usable else None

    def spine(self, version: str) -> dict[str, str]:
        """The git blob id of every file that a version of the template has."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="llmgine-spine-") as name:
            clone = Path(name) / "template"
            git = Git(folder=self.folder)
            git("clone", "--quiet", "--bare", "--", self.address, str(clone))
            # Named, since git may be told to look into no bare repository by itself.
            named = Git(folder=clone).with_environment(GIT_DIR=clone)
            listed = named.listed("ls-tree", "-r", "-z", f"{version}:template")
        entries = (line.partition("\t") for line in listed)
        return {path: entry.split()[2] for entry, _, path in entries}

    def render(
        self, answers: Answers, folder: Path, wanted: Sequence[tuple[str, Mapping[str, str]]]
    ) -> list[Path]:
        """Render versions with the recorded answers and others, in one process.

        Args:
            answers: those that are recorded.
            folder: an empty one, to render into.
            wanted: each version, with the answers that differ.

        Returns:
            The folder of each render.

        Raises:
            SpineError: Copier can't be had, doesn't find a version, or refuses an answer.
        """
        places = [folder / str(at) for at in range(len(wanted))]
        for place in places:
            place.mkdir(parents=True)
            (place / answers.name).parent.mkdir(parents=True, exist_ok=True)
            (place / answers.name).write_text(answers.text, "utf-8", newline="\n")
        request = {
            "answers_file": answers.name,
            "renders": [
                {"folder": str(place), "version": version, "data": dict(data)}
                for place, (version, data) in zip(places, wanted, strict=True)
            ],
        }
        _rendered(json.dumps(request), self.folder, [version for version, _ in wanted])
        return places


def _rendered(request: str, folder: Path, versions: Sequence[str]) -> None:
    """Let Copier work: from what uv has at hand, else from the network."""
    script = str(Path(__file__).with_name("render.py"))
    command = ["tool", "run", "--quiet", "--python", sys.executable, "--from", COPIER, "python"]
    for how in (["--offline"], []):
        done = run_uv(folder, *how, *command, script, data=request.encode())
        if not done.returncode:
            return
        begun = done.stdout.decode().split()
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        if begun:
            version = versions[len(begun) - 1]
            raise SpineError(f"the template's {version} can't be rendered: {lines[-1].strip()}")
    raise SpineError(f"uv can't run Copier: {lines[-1].strip()}")
