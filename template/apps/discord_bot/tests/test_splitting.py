"""Texts cut into messages: what holds for every text."""

from __future__ import annotations

import unicodedata

from discord_bot.splitting import LIMIT, Piece, sayable, split
from hypothesis import example, given
from hypothesis import strategies as st

FENCE = "```"
MARKS = [FENCE, "`", "\n", "\n\n", " ", "```py\n", "```c++\nint x;\n```", "~~~", "\r\n", ". "]
SIGNS = ["e\u0301", "👩🏽‍🔬", "🇩🇪", "🇫🇷", "👍", "\u0627\u0651", "क्षि", "\r\n"]
texts = st.lists(
    st.one_of(
        st.sampled_from(MARKS + SIGNS),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.integers(1, 300).map(lambda count: "word " * count),
        st.integers(1, 300).map(lambda count: "x" * count),
    ),
    max_size=30,
).map("".join)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(texts, st.integers(100, 400))
@example(FENCE * 500, 100)
@example("a" + "\u0301" * 5000, 100)
@example("🇩🇪" * 999, 100)
def test_pieces_are_the_text_each_short_enough_and_whole(text: str, limit: int) -> None:
    pieces = split(text, limit)
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        assert piece.text
        assert units(piece.content) <= limit
        assert piece.content.count(FENCE) % 2 == 0


@given(st.lists(st.sampled_from(SIGNS), min_size=1, max_size=200), st.integers(100, 400))
def test_no_sign_is_cut_into_halves(signs: list[str], limit: int) -> None:
    for piece in split("".join(signs), limit):
        rest = piece.text
        while rest:
            sign = next(each for each in sorted(SIGNS, key=len)[::-1] if rest.startswith(each))
            rest = rest[len(sign) :]


@given(texts, st.integers(100, 400), st.data())
def test_while_a_text_grows_what_was_said_stays(text: str, limit: int, data: st.DataObject) -> None:
    early = split(text[: data.draw(st.integers(0, len(text)))], limit)
    settled = early[:-2]
    assert split(text, limit)[: len(settled)] == settled


@given(st.text(st.characters()))
def test_whatever_comes_can_be_sent(text: str) -> None:
    said = sayable(text)
    said.encode()
    assert "\0" not in said
    if not any(unicodedata.category(each) == "Cs" for each in text):
        assert said == text.replace("\0", "\ufffd")


def test_a_pair_of_surrogates_is_the_character_that_was_meant() -> None:
    assert sayable("\ud83d\udc4d \ud83d") == "👍 \ufffd"


def test_a_short_text_is_one_message() -> None:
    assert split("Hello!") == [Piece("Hello!")]
    assert split("x" * LIMIT) == [Piece("x" * LIMIT)]
    assert split("") == []


def test_a_block_that_is_cut_goes_on_in_its_language() -> None:
    lines = "".join(f"print({number})\n" for number in range(300))
    first, second, *_ = split(f"Look:\n```python\n{lines}```\nThat was it.")
    assert first.content.startswith("Look:\n```python\nprint(0)\n")
    assert first.content.endswith(")\n```")
    assert second.content.startswith("```python\nprint(")


def test_a_block_is_not_cut_where_it_would_be_empty() -> None:
    text = "x" * (LIMIT - 20) + "\n```python\nprint()\n```"
    assert [piece.content for piece in split(text)] == [
        "x" * (LIMIT - 20) + "\n",
        "```python\nprint()\n```",
    ]
    text = "```\n" + "x" * (LIMIT - 8) + "\n```"
    assert [piece.closing for piece in split(text)][-1] == ""
    assert all(piece.text.strip("`\n") for piece in split(text))


def test_a_block_whose_end_hasn_t_come_is_shown_as_one() -> None:
    assert split("```py\nprint(")[0].content == "```py\nprint(\n```"


def test_paragraphs_lines_and_words_stay_whole() -> None:
    paragraph = "word " * 300
    assert [p.text for p in split(f"{paragraph}\n\n{paragraph}")] == [f"{paragraph}\n\n", paragraph]
    assert all(piece.text.endswith(" ") for piece in split("word " * 3000))


def test_a_line_s_end_of_two_characters_is_not_cut() -> None:
    first, second = split("x" * 95 + "\r\n" + "y" * 50, 100)
    assert (first.text, second.text) == ("x" * 95, "\r\n" + "y" * 50)
