"""Markdown as a tree of a few harmless elements, which the page makes nodes of, never HTML."""

from __future__ import annotations

from typing import Final, NotRequired, TypeAlias, TypedDict

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["LONGEST", "Element", "Node", "tree"]

LONGEST = 16 * 1024
"""Characters of one text; the parser takes a second for as many of the worst ones."""

_DEEPEST = 32
_MOST_CELLS = 5000
_SCHEMES = ("http://", "https://", "mailto:")
# A message's headings come below the page's own.
_TAGS: Final = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6", "h6": "h6"} | {
    tag: tag
    for tag in (
        *("p", "blockquote", "ul", "ol", "li", "hr", "br", "strong", "em", "s", "a"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    )
}


class Element(TypedDict):
    """An element of the page.

    Attributes:
        tag: its name.
        children: what stands in it.
        href: where a link leads.
        start: the number that a list begins with.
        align: where the text of a table's cell stands.
        language: what a block of code is written in.
    """

    tag: str
    children: list[Node]
    href: NotRequired[str]
    start: NotRequired[int]
    align: NotRequired[str]
    language: NotRequired[str]


Node: TypeAlias = "Element | str"


def tree(text: str) -> list[Node]:
    """Return what a text says, as nodes; HTML in it is text, and pictures are links."""
    builder = _Builder()
    for token in _parser(text).parse(text):
        builder.add(token)
    return builder.nodes


def _parser(text: str) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")
    # Rows are filled up: a few thousand characters can ask for a million cells.
    lines = text.splitlines()
    if len(lines) * max((line.count("|") for line in lines), default=0) <= _MOST_CELLS:
        parser.enable("table")
    parser.validateLink = _is_harmless
    return parser


def _is_harmless(url: str) -> bool:
    return url.strip().lower().startswith(_SCHEMES)


class _Builder:
    """Makes a tree of the parser's flat tokens.

    Attributes:
        nodes: the tree's top.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._open = [self.nodes]

    def add(self, token: Token) -> None:
        """Take the next token."""
        match token:
            case Token(nesting=-1):
                self._open.pop()
            case Token(nesting=1):
                self._begin(token)
            case Token(type="inline", children=list(children)):
                for child in children:
                    self.add(child)
            case Token(type="fence" | "code_block"):
                self._put(_code(token))
            case Token(type="code_inline"):
                self._put(_element("code", token.content))
            case Token(type="image"):
                self._put(_picture(token))
            case Token(type="hr" | "hardbreak"):
                self._put(_element(token.tag))
            case Token(type="softbreak"):
                self._put("\n")
            case _:
                self._put(token.content)

    def _begin(self, token: Token) -> None:
        here = self._open[-1]
        tag = _TAGS.get(token.tag)
        if token.hidden or tag is None or len(self._open) > _DEEPEST:
            self._open.append(here)
            return
        element = _element(tag)
        _describe(element, token)
        here.append(element)
        self._open.append(element["children"])

    def _put(self, node: Node) -> None:
        if node:
            self._open[-1].append(node)


def _element(tag: str, *children: Node) -> Element:
    return {"tag": tag, "children": list(children)}


def _code(token: Token) -> Element:
    element = _element("pre", token.content)
    if words := token.info.split(maxsplit=1):
        element["language"] = words[0]
    return element


def _picture(token: Token) -> Element:
    address = str(token.attrs.get("src", ""))
    element = _element("a", token.content or address)
    element["href"] = address
    return element


def _describe(element: Element, token: Token) -> None:
    attributes = token.attrs
    if element["tag"] == "a":
        element["href"] = str(attributes.get("href", ""))
    if isinstance(start := attributes.get("start"), int):
        element["start"] = start
    if (style := str(attributes.get("style", ""))).startswith("text-align:"):
        element["align"] = style.removeprefix("text-align:")
