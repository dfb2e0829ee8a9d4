"""The page's files, and Markdown as nodes. What a person sees of it takes a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

import httpx2
import pytest
from api.page.markdown import LONGEST, Element, Node, tree
from hypothesis import given
from hypothesis import strategies as st

TAGS = {
    *("p", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "hr", "br", "pre", "code"),
    *("strong", "em", "s", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
MARKS = [
    *'*_`[]()<>#|-!&\\:"a',
    *("\n", "\n\n", "  ", "~~", "1. ", "> "),
    *("javascript:", "http://a", "<script>", "data:x"),
]


def elements(nodes: list[Node]) -> list[Element]:
    found: list[Element] = []
    for node in nodes:
        if not isinstance(node, str):
            found += [node, *elements(node["children"])]
    return found


def words(nodes: list[Node]) -> str:
    return "".join(it if isinstance(it, str) else words(it["children"]) for it in nodes)


def test_what_markdown_says() -> None:
    assert tree("# Hi\n\n1. *a*\n2. `b`") == [
        {"tag": "h3", "children": ["Hi"]},
        {
            "tag": "ol",
            "children": [
                {"tag": "li", "children": [{"tag": "em", "children": ["a"]}]},
                {"tag": "li", "children": [{"tag": "code", "children": ["b"]}]},
            ],
        },
    ]
    assert tree("7. x")[0] == {
        "tag": "ol",
        "start": 7,
        "children": [{"tag": "li", "children": ["x"]}],
    }
    assert tree("```py\n1 < 2\n```") == [{"tag": "pre", "children": ["1 < 2\n"], "language": "py"}]
    link: Node = {"tag": "a", "children": ["x"], "href": "https://e.com/?q=1"}
    assert tree("[x](https://e.com/?q=1)") == [{"tag": "p", "children": [link]}]
    head, body = elements(tree("| a |\n|-:|\n| ~~b~~ |"))[2], elements(tree("a  \nb\n***\n"))
    assert (head["tag"], head.get("align"), head["children"]) == ("tr", None, [
        {"tag": "th", "children": ["a"], "align": "right"}
    ])  # fmt: skip
    assert [each["tag"] for each in body] == ["p", "br", "hr"]


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:1)",
        "[x](JaVa&#x73;cript:1)",
        "[x]( \x01javascript:1)",
        "[x](data:text/html,1)",
        "[x](vbscript:1)",
        "[x](//e.com)",
        "[x](file:///etc/passwd)",
        "![x](javascript:1)",
        "![x](data:image/svg+xml,1)",
        "<javascript:1>",
        "[x][r]\n\n[r]: javascript:1",
        "<a href='https://e.com'>x</a>",
        "<img src=x onerror=y>",
    ],
)
def test_nothing_but_harmless_addresses_becomes_a_link(text: str) -> None:
    assert not [each for each in elements(tree(text)) if each["tag"] == "a"]
    assert "x" in words(tree(text)) or "javascript" in words(tree(text))


@given(st.lists(st.sampled_from(MARKS), max_size=60).map("".join))
def test_whatever_is_said_becomes_a_few_kinds_of_nodes(text: str) -> None:
    nodes = tree(text)
    for each in elements(nodes):
        assert each["tag"] in TAGS
        assert re.match("(https?://|mailto:)", each.get("href", "http://"), re.IGNORECASE)
        assert set(each) <= {"tag", "children", "href", "start", "align", "language"}
    json.dumps(nodes)


@pytest.mark.parametrize(
    "text",
    [
        "*a " * 3000 + "a* " * 2400,
        "> " * 8000,
        "- " * 8000,
        "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|\n" * 7000,
        "![" * 8000,
        "".join("  " * depth + "- a\n" for depth in range(120)),
    ],
)
def test_the_worst_texts_are_shallow_and_small(text: str) -> None:
    shown = json.dumps(tree(text[:LONGEST]))
    assert len(shown) < 2_000_000


async def test_the_route(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/markdown", json={"text": "**x**"})
    assert answer.json() == {
        "nodes": [{"tag": "p", "children": [{"tag": "strong", "children": ["x"]}]}]
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"text": 1}', b'{"text": "\\ud800"}', b'{"text": "%s"}' % (b"x" * 16385)],
)
async def test_a_wrong_text_is_refused(client: httpx2.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/markdown", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_every_file_of_the_page_is_served(client: httpx2.AsyncClient) -> None:
    names = [each.name for each in (files("api.page") / "static").iterdir()]
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= set(names)
    index = await client.get("/")
    assert index.headers["content-type"].startswith("text/html")
    for name in names:
        answer = await client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = {"If-None-Match": answer.headers["etag"]}
        same = await client.get(f"/page/{name}", headers=again)
        assert (same.status_code, same.content) == (304, b"")
        head = await client.head(f"/page/{name}")
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("name", ["none.js", "..%2froutes.py", "%2e%2e/routes.py", "routes.py"])
async def test_nothing_else_is(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert "error" in answer.json()


async def test_the_page_can_be_had_without_the_key_and_nothing_else(
    start_client: Callable[..., Awaitable[httpx2.AsyncClient]],
) -> None:
    client = await start_client(api={"key": "a-key-of-some-length"})
    assert (await client.get("/")).status_code == 200
    assert (await client.get("/page/app.js")).status_code == 200
    assert (await client.post("/markdown", json={"text": "x"})).status_code == 401
