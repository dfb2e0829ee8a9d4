"""Pictures for the READMEs, taken of the real programs: `python -m tests.pictures` takes them anew.

Pictures of the page come from a browser, those of the chat from a terminal that a browser draws.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from html import escape
from importlib import import_module
from io import BytesIO
from os import environ
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from extensions.questionnaire import ROOT
from tests.page_browser import browsing, visiting
from tests.page_server import serving

__all__ = ["HERE", "IN_PROJECTS", "SHIPPED", "take"]

HERE = ROOT / "docs" / "pictures"
IN_PROJECTS = ROOT / "template" / "docs"
SHIPPED = ("chat.png", "page.png")
"""What projects have for their READMEs, too."""

_COLOURS = 160
_COLUMNS, _LINES = 104, 34

_ANSWER = """At seven hours a day it is **12 days**:

| week | days | hours |
|:-----|-----:|------:|
| first | 5 | 35 |
| second | 5 | 35 |
| third | 2 | 14 |

```python
days = 84 / 7  # 12.0
```"""
_PROVIDER = f"""
from llmgine.contracts import ChatMessage, ToolCall
from llmgine.providers.scripted import ScriptedProvider


def call(name, arguments):
    return ChatMessage.assistant(ToolCall(id=name, name=name, arguments=arguments))


def build(config):
    steps = [
        call("calculate", '{{"expression": "84 / 7"}}'),
        {_ANSWER!r},
        call("read_file", '{{"path": "docs/plan.md"}}'),
    ]
    return ScriptedProvider(steps, delay=0.01)
"""
_TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 26px 30px; background: #16181d; display: inline-block; }}
pre {{ margin: 0; font: 15px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; color: #d8dae0; }}
</style><pre>{text}</pre>"""
_SHADES = {
    "black": "#5b606c",
    "red": "#ff8f86",
    "green": "#7fcf9d",
    "brown": "#e3b869",
    "blue": "#8fa4ff",
    "magenta": "#d6a1ee",
    "cyan": "#79c9d6",
    "white": "#d8dae0",
    "brightblack": "#8a909d",
}


# What the terminal shows before its next prompt, and what is typed there.
_TYPED = (
    ("Ctrl-D", "What is 12 * (3 + 4)?"),
    ("answered", "/trace"),
    ("calculate", ""),
)


def take(browser: Browser, folder: Path) -> list[Path]:
    """Take all pictures, and return where they lie."""
    with tempfile.TemporaryDirectory() as work:
        shots = {**_of_page(browser, Path(work)), "chat": _of_chat(browser, Path(work))}
    folder.mkdir(parents=True, exist_ok=True)
    return [_saved(shot, folder / f"{name}.png") for name, shot in shots.items()]


def _of_page(browser: Browser, work: Path) -> dict[str, bytes]:
    (work / "shown.py").write_text(_PROVIDER, "utf-8")
    shots = dict[str, bytes]()
    with serving(work, provider__name="shown:build") as server:
        window = {"width": 1360, "height": 850}
        with visiting(browser, server.url, viewport=window, color_scheme="light") as visit:
            visit.ask("How many days are 84 hours of work, at seven hours a day?")
            visit.say("Does that fit docs/plan.md?")
            page = visit.page
            page.get_by_role("button", name="Approve read_file").wait_for()
            shots["page"] = _still(page)
            page.emulate_media(color_scheme="dark")
            shots["page-dark"] = _still(page)
            page.emulate_media(color_scheme="light")
            page.set_viewport_size({"width": 390, "height": 780})
            shots["page-phone"] = _still(page)
            page.get_by_role("button", name="Deny read_file").click()
    return shots


def _still(page: Page) -> bytes:
    """Take a picture in which nothing moves."""
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(300)
    return page.screenshot(animations="disabled", caret="hide")


def _of_chat(browser: Browser, work: Path) -> bytes:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    try:
        page.set_content(_TERMINAL.format(text="\n".join(_typed(work))))
        return page.locator("body").screenshot()
    finally:
        page.close()


def _typed(work: Path) -> Iterable[str]:
    """Return what the terminal shows of a short conversation, line by line, as HTML."""
    pexpect, pyte = vars(import_module("pexpect")), vars(import_module("pyte"))
    kept = {name: it for name, it in environ.items() if not name.startswith("LLMGINE_")}
    child = pexpect["spawn"](
        sys.executable,
        ["-m", "chat.cli", "--session", "my-session"],
        cwd=str(work),
        env={**kept, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **_console()},
        encoding="utf-8",
        dimensions=(_LINES, _COLUMNS),
        timeout=60,
    )
    shown = ""
    try:
        for mark, text in _TYPED:
            # The prompt is drawn with each letter: what comes before the next one tells them apart.
            child.expect(f"{mark}.*you>")
            shown += child.before + child.after
            if text:
                child.sendline(text)
    finally:
        child.close(force=True)
    screen = pyte["Screen"](_COLUMNS, _LINES)
    # This terminal knows no dim text; grey is what others make of it.
    pyte["Stream"](screen).feed(shown.replace("\x1b[2m", "\x1b[90m"))
    lines = [_line(screen.buffer[number]) for number in range(_LINES)]
    return re.sub(r"\n+\Z", "", "\n".join(lines)).split("\n")


def _console() -> dict[str, str]:
    names = ("CONSOLE__ENABLED", "CONSOLE__FOLD", "FILE__ENABLED")
    return {f"LLMGINE_{name}": "true" for name in names}


def _line(cells: Any) -> str:
    shown = [cells[column] for column in range(_COLUMNS)]
    while shown and not shown[-1].data.strip():
        shown.pop()
    return "".join(_cell(each) for each in shown)


def _cell(cell: Any) -> str:
    colour = _SHADES.get(cell.fg, "" if cell.fg == "default" else f"#{cell.fg}")
    style = (f"color:{colour};" if colour else "") + ("font-weight:bold;" if cell.bold else "")
    text = escape(cell.data)
    return f'<span style="{style}">{text}</span>' if style else text


def _saved(shot: bytes, place: Path) -> Path:
    """Write a picture, with few colours: READMEs load quickly, and repositories stay small."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(place, optimize=True)
    return place


def main() -> None:
    """Take the pictures anew."""
    with browsing() as browser:
        take(browser, HERE)
    for name in SHIPPED:
        shutil.copy(HERE / name, IN_PROJECTS / name)


if __name__ == "__main__":
    main()
