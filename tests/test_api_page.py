"""The API's page in a real browser: what a person sees, does, and is kept safe from."""

import json
import re
from collections.abc import Generator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests import pictures
from tests.page_browser import PATIENCE, Visit, browsing, visiting
from tests.page_server import Proxy, Server, serving

pytestmark = pytest.mark.timeout(600)
expect.set_options(timeout=PATIENCE)

NOTES = "These are <b>my</b> notes."
PAYLOADS = {
    "script": "<script>canary = 1</script>",
    "image": "<img src=x onerror='canary = 1'><img src=http://127.0.0.9/canary>",
    "svg": "<svg/onload=canary=1><animate onbegin=canary=1 attributeName=x dur=1s>",
    "frame": "<iframe srcdoc='<script>top.canary=1</script>'></iframe><object data=/canary>",
    "style": "<style>*{display:none}</style><link rel=stylesheet href=//127.0.0.9/c.css>",
    "form": "<form action=//127.0.0.9><button formaction=javascript:canary=1>x</button></form>",
    "link": "[click](javascript:canary=1) [y](JaVa&#x73;cript:canary=1) [x](\tjavascript:canary=1)",
    "data": "[click](data:text/html,<script>top.canary=1</script>) [v](vbscript:canary)",
    "autolink": "<javascript:canary=1> <data:text/html,canary>",
    "picture": "![p](http://127.0.0.9/canary) ![x](javascript:canary=1) ![d](data:image/svg+xml,x)",
    "title": '[x](https://example.com "\\" onmouseover=canary=1 x=\\"")',
    "address": '[x](https://e.com/"onmouseover="canary=1) [y](<https://e.com/" onclick=canary>)',
    "entities": "&lt;img src=x onerror=canary=1&gt; &#60;script&#62;canary=1&#60;/script&#62;",
    "fence": "```<img/src=x/onerror=canary=1>\n</code></pre><script>canary=1</script>\n```",
    "reference": "[x][r]\n\n[r]: javascript:canary=1 '<img src=x onerror=canary=1>'",
    "table": "| <img src=x onerror=canary=1> | b |\n|:-|-:|\n| [x](javascript:canary=1) | `<b>` |",
    "heading": "# <script>canary=1</script> {#id onclick=canary=1}",
    "template": "${canary=1} {{constructor.constructor('canary=1')()}} <%= canary=1 %>",
}
EVERYTHING = "\n\n".join(PAYLOADS.values())
_FOREIGN = """() => {
  const kinds = "SCRIPT IFRAME OBJECT EMBED IMG STYLE LINK FORM BASE META ANIMATE".split(" ");
  const acts = (it) => [...it.attributes].some((one) => one.name.startsWith("on"));
  return [...document.querySelectorAll(".message *, .call *, .row *, .session *")]
    .filter((it) => kinds.includes(it.tagName.toUpperCase()) || acts(it))
    .map((it) => it.outerHTML);
}"""
_TOUCH = """() => {
  for (const it of document.querySelectorAll(".message *, .call *, .row *, .session *")) {
    for (const type of ["mouseover", "mouseenter", "mousedown", "focus"]) {
      it.dispatchEvent(new MouseEvent(type, { bubbles: true }));
    }
  }
}"""
SAFE = {"http:", "https:", "mailto:"}


class Go(Protocol):
    """Visits a page, of the module's own server by default."""

    def __call__(self, url: str = "", path: str = "/", **options: Any) -> Visit: ...


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """One browser for all."""
    with browsing() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs, with files for a tool to read."""
    made = tmp_path_factory.mktemp("project")
    (made / "notes.txt").write_text(NOTES, "utf-8")
    (made / "evil.txt").write_text(EVERYTHING, "utf-8")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Generator[Server]:
    """One server for all tests that do nothing to it."""
    with serving(folder) as running:
        yield running


@pytest.fixture
def go(browser: Browser, server: Server) -> Generator[Go]:
    """Visit pages; nothing may have gone wrong on them when the test has ended."""
    with ExitStack() as stack:

        def visit(url: str = "", path: str = "/", **options: Any) -> Visit:
            return stack.enter_context(visiting(browser, url or server.url, path, **options))

        yield visit


def call(page: Page, name: str) -> Locator:
    return page.locator("details.call").filter(has=page.locator(".call-name", has_text=name))


def row(page: Page, name: str) -> Locator:
    return page.locator(".row").filter(has=page.locator(".name", has_text=name))


def rows(page: Page) -> list[str]:
    return page.locator(".row .name").all_inner_texts()


# -- Quick ones, which every change runs


def test_a_conversation_streams_and_is_rendered(go: Go) -> None:
    visit = go()
    page = visit.page
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    visit.ask(
        "say:# Title\n\nSome **bold** words, and `code`.\n\n```py\nprint(1)\n```\n\n- one\n- two"
    )
    answer = page.get_by_role("article", name="Assistant")
    expect(answer.locator("h3")).to_have_text("Title")
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("li")).to_have_text(["one", "two"])
    expect(answer.locator("pre code")).to_have_text("print(1)\n")
    expect(page.locator(".turn-end")).to_have_text(
        re.compile(r"^[\d.]+ m?s · \d+ tokens in, \d+ out$")
    )
    expect(page.get_by_role("status").filter(has_text="Answer:")).to_be_attached()
    assert rows(page)[0] == "RunTurn"
    expect(row(page, "theirs").or_(row(page, "scripted")).locator(".took")).to_have_text(
        re.compile("s$")
    )
    visit.ask("What is 12 * (3 + 4)?")
    tool = call(page, "calculate")
    expect(tool).not_to_have_attribute("open", "")
    expect(tool.locator(".call-status")).to_have_text(re.compile(r"^done · [\d.]+ m?s$"))
    tool.locator("summary").click()
    expect(tool.locator(".result pre")).to_have_text("84")


def test_the_policy_is_strict_and_the_files_are_as_they_say(server: Server) -> None:
    def fetch(path: str) -> tuple[str, Any]:
        with urlopen(f"{server.url}{path}", timeout=30) as answer:  # noqa: S310 - loopback
            return answer.read().decode(), answer.headers

    index, headers = fetch("/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    # No script and no style stands in the page itself, and nothing comes from elsewhere.
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?:|//", index)
    for name in re.findall(r'(?:src|href)="(page/[^"]+)"', index):
        text, headers = fetch(f"/{name}")
        assert headers["Content-Security-Policy"] == policy
        assert text


# -- Tools


@pytest.mark.heavy
def test_a_call_waits_until_it_is_approved(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.say("Read notes.txt")
    tool = call(page, "read_file")
    expect(tool).to_contain_text("Nothing happens before you decide")
    expect(tool.locator(".call-block pre").first).to_contain_text('"path": "notes.txt"')
    expect(
        page.get_by_role("navigation", name="Conversations").get_by_text("waits for you")
    ).to_be_visible()
    page.get_by_role("button", name="Approve read_file").click()
    page.locator(".turn-end").wait_for()
    expect(tool.locator(".result pre")).to_have_text(NOTES)
    expect(tool).to_contain_text("Approved.")
    expect(page.get_by_text("waits for you", exact=True)).to_have_count(0)


@pytest.mark.heavy
def test_a_call_is_denied_and_another_approved_by_keyboard(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.say("Read notes.txt")
    page.get_by_role("button", name="Deny read_file").wait_for()
    expect(page.get_by_role("alert").filter(has_text="Shift+Tab leads")).to_be_attached()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Deny read_file")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator(".turn-end").wait_for()
    expect(call(page, "read_file").locator(".call-status")).to_have_text(re.compile("^failed"))
    expect(call(page, "read_file").locator(".result pre")).to_contain_text("denied")
    expect(call(page, "read_file").locator("summary")).to_be_focused()
    page.keyboard.press("/")
    visit.say("Read notes.txt")
    page.get_by_role("button", name="Approve read_file").wait_for()
    page.get_by_role("region", name="Messages").focus()
    page.keyboard.press("a")
    page.locator(".turn-end").nth(1).wait_for()
    expect(call(page, "read_file").nth(1).locator(".result pre")).to_have_text(NOTES)


@pytest.mark.heavy
def test_what_waits_is_there_after_a_reload(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.ask("Hello")
    visit.say("Read notes.txt")
    page.get_by_role("button", name="Approve read_file").wait_for()
    page.reload()
    expect(page.locator(".message.user")).to_have_text(["Hello", "Read notes.txt"])
    page.get_by_role("button", name="Approve read_file").click()
    page.locator(".turn-end").nth(1).wait_for()
    expect(call(page, "read_file").locator(".result pre")).to_have_text(NOTES)
    page.reload()
    page.locator(".turn-end").nth(1).wait_for()
    expect(page.locator(".message.user")).to_have_text(["Hello", "Read notes.txt"])
    expect(call(page, "read_file")).to_have_count(1)


@pytest.mark.heavy
def test_two_pages_see_the_same(go: Go) -> None:
    first = go()
    first.ask("Hello")
    second = go(path=f"/?{first.page.url.partition('?')[2]}")
    expect(second.page.locator(".message.user")).to_have_text("Hello")
    second.ask("What is 6 * 7?")
    expect(first.page.locator(".message.user")).to_have_text(["Hello", "What is 6 * 7?"])
    expect(call(first.page, "calculate").locator(".call-status")).to_have_text(re.compile("^done"))


# -- Turns and sessions


@pytest.mark.heavy
def test_an_answer_is_stopped(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.say("longer")
    expect(page.get_by_role("article", name="Assistant")).to_contain_text("word3")
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".turn-end")).to_have_text(re.compile("^Stopped"))
    assert page.get_by_role("article", name="Assistant").inner_text().count("end.") < 4
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    visit.say("longer")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".turn-end").nth(1)).to_have_text(re.compile("^Stopped"))


@pytest.mark.heavy
def test_the_newest_is_followed_unless_somebody_looks_elsewhere(go: Go) -> None:
    visit = go()
    page = visit.page
    messages = page.get_by_role("region", name="Messages")
    button = page.get_by_role("button", name="Newest messages")
    near = "(it) => it.scrollHeight - it.scrollTop - it.clientHeight < 80"
    visit.ask("long")
    visit.ask(f"say:{'One more. ' * 100}")
    messages.evaluate("(it) => { it.scrollTop = 0; }")
    expect(button).to_be_visible()
    visit.say("long")
    expect(page.get_by_role("article", name="Assistant").last).to_contain_text("word99")
    expect(button).to_be_hidden()
    assert page.wait_for_function(near, arg=messages.element_handle())
    messages.hover()
    page.mouse.wheel(0, -500)
    expect(button).to_be_visible()
    page.locator(".turn-end").nth(2).wait_for()
    assert not messages.evaluate(near)
    button.click()
    expect(button).to_be_hidden()
    assert messages.evaluate(near)


@pytest.mark.heavy
def test_code_is_copied(go: Go) -> None:
    visit = go(permissions=["clipboard-read", "clipboard-write"])
    visit.ask("say:```py\nprint('<b>')\n```")
    visit.page.get_by_role("button", name="Copy").click()
    expect(visit.page.get_by_role("button", name="Copied")).to_be_visible()
    assert visit.page.evaluate("navigator.clipboard.readText()") == "print('<b>')\n"


@pytest.mark.heavy
def test_thoughts_are_folded(go: Go) -> None:
    visit = go()
    visit.ask("think")
    expect(visit.page.get_by_text("Hm, let me see.")).to_be_hidden()
    visit.page.get_by_text("Thinking").click()
    expect(visit.page.get_by_text("Hm, let me see.")).to_be_visible()
    expect(visit.page.get_by_role("article", name="Assistant")).to_have_text("Thought about it.")


@pytest.mark.heavy
def test_sessions_are_made_switched_forked_cleared_and_deleted(go: Go) -> None:
    visit = go()
    page = visit.page
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    before = listed.count()
    visit.ask("My first one")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#welcome")).to_be_visible()
    visit.ask("My second one")
    expect(listed).to_have_count(before + 2)
    listed.filter(has_text="My first one").first.click()
    expect(page.locator(".message.user")).to_have_text("My first one")
    expect(page.get_by_role("heading", level=2, name="My first one")).to_be_visible()
    page.go_back()
    expect(page.locator(".message.user")).to_have_text("My second one")
    page.get_by_role("button", name="Fork").click()
    expect(listed).to_have_count(before + 3)
    expect(page.locator(".message.user")).to_have_text("My second one")
    visit.ask("Another way")
    expect(page.locator(".message.user")).to_have_text(["My second one", "Another way"])
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".message.user")).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(listed).to_have_count(before + 2)
    expect(page.get_by_role("button", name="Delete")).to_be_hidden()


@pytest.mark.heavy
def test_the_timeline_is_filtered_and_shows_records(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.ask("What is 12 * (3 + 4)?")
    row(page, "calculate").locator("summary").click()
    written = row(page, "calculate").locator("pre")
    expect(written).not_to_be_empty()  # it is written once the row has opened
    record = json.loads(written.inner_text())
    assert record["started"]["call"]["name"] == "calculate"
    assert record["ended"]["result"]["content"] == "84"
    page.get_by_label("Show").select_option("Tools")
    expect(page.locator(".row:visible .name")).to_have_text(["calculate"])
    page.get_by_label("Show").select_option("All")
    page.get_by_label("Filter by name or detail").fill("runturn")
    expect(page.locator(".row:visible .name")).to_have_text(["RunTurn"])
    page.get_by_label("Filter by name or detail").fill("")
    depths = page.locator(".row").evaluate_all(
        "(rows) => rows.map((it) => [it.querySelector('.name').textContent,"
        " it.style.getPropertyValue('--depth')])"
    )
    assert ["RunTurn", "0"] in depths
    assert ["calculate", "1"] in depths
    page.get_by_role("button", name="Timeline").first.click()
    expect(page.get_by_role("complementary", name="Timeline")).to_be_hidden()


# -- When things go wrong


@pytest.mark.heavy
def test_an_error_says_what_to_do(go: Go) -> None:
    visit = go()
    page = visit.page
    visit.ask("no key")
    expect(page.locator(".failure")).to_contain_text("The key was refused.")
    expect(page.locator(".failure")).to_contain_text("Set the provider's key in .env")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".failure")).to_have_count(2)
    expect(row(page, "RunTurn").first).to_have_attribute("data-mark", "error")
    visit.ask("Hello")
    expect(page.get_by_role("article", name="Assistant")).to_contain_text("Hello!")


@pytest.mark.heavy
def test_a_connection_that_breaks_is_taken_up_where_it_broke(go: Go, server: Server) -> None:
    with Proxy(server.url) as proxy:
        visit = go(proxy.url)
        visit.expect("ERR_")
        page = visit.page
        visit.say("long")
        expect(page.get_by_role("article", name="Assistant")).to_contain_text("word9")
        proxy.cut()
        expect(page.get_by_text("Reconnecting…")).to_be_visible()
        proxy.mend()
        expect(page.get_by_text("Connected")).to_be_visible()
        page.locator(".turn-end").wait_for()
        visit.settled()
        words = page.get_by_role("article", name="Assistant").inner_text().split()
        assert words == [*(f"word{number}" for number in range(400)), "end."]
        expect(page.locator(".message.user")).to_have_count(1)
        visit.leave()


@pytest.mark.heavy
def test_a_server_that_ends_and_comes_back(go: Go, tmp_path: Path) -> None:
    with serving(tmp_path, context__store="sqlite") as server:
        visit = go(server.url)
        visit.expect("ERR_", "503")
        page = visit.page
        visit.ask("What is 6 * 7?")
        server.stop()
        expect(page.get_by_text("Reconnecting…")).to_be_visible()
        visit.say("Are you there?")
        expect(page.get_by_role("alert").filter(has_text="can't be reached")).to_be_visible()
        expect(page.get_by_label("Message", exact=True)).to_have_value("Are you there?")
        server.start()
        expect(page.get_by_text("Connected")).to_be_visible()
        expect(page.locator(".message.user")).to_have_text("What is 6 * 7?")
        visit.ask("Are you there?")
        expect(page.locator(".message.user")).to_have_text(["What is 6 * 7?", "Are you there?"])
        expect(call(page, "calculate")).to_have_count(1)
        visit.leave()


@pytest.mark.heavy
def test_a_turn_whose_beginning_is_forgotten_has_it_at_its_end(go: Go, tmp_path: Path) -> None:
    with serving(tmp_path, api__events_kept="20") as server:
        visit = go(server.url)
        page = visit.page
        visit.say("longer")
        expect(page.get_by_role("article", name="Assistant")).to_contain_text("word60")
        page.reload()
        expect(page.get_by_text("Working…")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".message.user")).to_have_text("longer")
        visit.settled()
        answer = page.get_by_role("article", name="Assistant")
        expect(answer).to_contain_text("word0 word1")
        expect(page.get_by_text("Working…")).to_have_count(0)
        visit.leave()


@pytest.mark.heavy
def test_a_conversation_that_is_gone_is_said_to_be(go: Go) -> None:
    visit = go(path="/?session=0123456789abcdef0123456789abcdef")
    visit.expect("404")
    expect(visit.page.get_by_text("no longer there")).to_be_visible()
    visit.ask("Hello")
    expect(visit.page.get_by_role("article", name="Assistant")).to_contain_text("Hello!")


@pytest.mark.heavy
def test_a_key_is_asked_for_once(go: Go, tmp_path: Path) -> None:
    key = "a-key-of-some-length"
    with serving(tmp_path, api__key=key) as server:
        visit = go(server.url)
        visit.expect("401")
        page = visit.page
        dialog = page.get_by_role("dialog", name="This API has a key")
        dialog.get_by_label("Key").fill("not-the-right-key")
        page.keyboard.press("Enter")
        expect(dialog.get_by_text("doesn't know this key")).to_be_visible()
        page.keyboard.press("Escape")
        dialog.get_by_label("Key").fill(key)
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog).to_be_hidden()
        visit.ask("say:**Hello**")
        expect(page.locator(".markdown strong")).to_have_text("Hello")
        page.reload()
        page.locator(".turn-end").wait_for()
        expect(dialog).to_be_hidden()
        visit.leave()


# -- For everybody


@pytest.mark.heavy
def test_a_phone_shows_one_view_at_a_time(go: Go) -> None:
    visit = go(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = visit.page
    visit.ask(
        f"say:| a | b |\n|-|-|\n| {'x' * 300} | y |\n\n```\n{'long ' * 60}\n```\n\n{'w' * 300}"
    )
    visit.say("Read notes.txt")
    page.get_by_role("button", name="Approve read_file").tap()
    page.locator(".turn-end").nth(1).wait_for()
    for name, shown in [
        ("Conversations", "#sessions"),
        ("Timeline", "#timeline"),
        ("Chat", "#chat"),
    ]:
        page.get_by_role("navigation", name="Views").get_by_role("button", name=name).tap()
        expect(page.locator(shown)).to_be_visible()
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [360, 360]
    expect(page.locator("#timeline")).to_be_hidden()


@pytest.mark.heavy
def test_dark_and_light_by_system_and_by_choice(go: Go) -> None:
    def ground(page: Page) -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    page = go(color_scheme="dark").page
    assert ground(page) < 200
    page.get_by_role("button", name="Dark or light colours").click()
    assert ground(page) > 600
    page.reload()
    assert ground(page) > 600
    assert ground(go(color_scheme="light").page) > 600


@pytest.mark.heavy
def test_everything_by_keyboard(go: Go) -> None:
    visit = go()
    page = visit.page
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    shortcuts = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts).to_be_visible()
    page.keyboard.press("Escape")
    expect(shortcuts).to_be_hidden()  # until then, keys are the dialog's
    page.keyboard.press("/")
    page.keyboard.type("say:two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    page.locator(".turn-end").wait_for()
    visit.settled()
    expect(page.get_by_role("article", name="Assistant")).to_have_text("two lines")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    expect(page.locator("#timeline")).to_be_hidden()
    page.keyboard.press("t")
    page.keyboard.press("n")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.go_back()
    page.locator(".turn-end").wait_for()
    # From the first to the last by Tab: all that can be used is come by, and shows that it is.
    page.get_by_role("link", name="Skip").focus()
    reached = set[str]()
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "() => { const it = document.activeElement; const look = getComputedStyle(it);"
            " return it === document.body ? '' : `${it.id || it.className || it.tagName}` +"
            " (look.outlineStyle === 'none' && it.id !== 'composer-text' ? ' unseen' : ''); }"
        )
        reached.add(name)
    assert not [name for name in reached if name.endswith("unseen")]
    expected = {"new", "session", "fork", "clear", "delete", "messages", "composer-text", "send"}
    expected |= {"toggle-timeline", "toggle-theme", "show-help", "filter-text", "filter-kind"}
    assert expected <= reached
    assert page.evaluate("document.querySelectorAll('.row summary').length") > 1
    assert "SUMMARY" in reached


@pytest.mark.heavy
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_is_accessible(go: Go, colours: str) -> None:
    visit = go(color_scheme=colours)
    page = visit.page

    def broken() -> dict[str, list[str]]:
        found: list[dict[str, Any]] = page.evaluate("axe.run().then((it) => it.violations)")
        return {each["id"]: [node["html"] for node in each["nodes"]] for each in found}

    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))

    assert broken() == {}
    visit.ask(
        "say:# Title\n\n| a | b |\n|-|-|\n| 1 | 2 |\n\n> quote [link](https://example.com)\n\n```py\nx\n```"
    )
    visit.ask("no key")
    visit.say("Read notes.txt")
    page.get_by_role("button", name="Approve read_file").wait_for()
    row(page, "RunTurn").first.locator("summary").click()
    assert broken() == {}
    page.get_by_role("button", name="Deny read_file").click()
    page.locator(".turn-end").nth(2).wait_for()
    page.get_by_role("button", name="Delete").click()
    assert broken() == {}
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    assert broken() == {}


# -- Against those who mean harm


def harmless(page: Page) -> None:
    """Nothing on the page came from a text: no element, no attribute, no address."""
    page.wait_for_function("() => document.readyState === 'complete'")
    found = page.evaluate(_FOREIGN)
    assert found == []
    addresses = page.evaluate(
        "[...document.querySelectorAll('a[href]:not(.skip)')].map((it) => it.protocol)"
    )
    assert set(addresses) <= SAFE
    for link in page.locator("#messages a").all():
        assert "noopener" in (link.get_attribute("rel") or "")
    page.evaluate(_TOUCH)


@pytest.mark.heavy
def test_no_text_becomes_more_than_text(go: Go) -> None:
    visit = go()
    page = visit.page
    for payload in (PAYLOADS["image"], PAYLOADS["script"]):
        page.get_by_role("button", name="New conversation").click()
        visit.ask(payload)  # what the user says, its title, and the answer that repeats it
        expect(page.locator(".session-title").filter(has_text=payload[:20]).first).to_be_visible()
    visit.ask(f"say:{EVERYTHING}")
    harmless(page)
    assert page.get_by_role("article", name="Assistant").last.inner_text().count("canary") > 20
    visit.say("Read evil.txt")
    page.get_by_role("button", name="Approve read_file").click()
    page.locator(".turn-end").nth(2).wait_for()
    expect(call(page, "read_file").locator(".result pre")).to_contain_text(
        "<script>canary = 1</script>"
    )
    evil = json.dumps({PAYLOADS["image"]: PAYLOADS["script"]})
    visit.ask(f"call:{PAYLOADS['image']}|{evil}")
    visit.ask("call:calculate|{'<img src=x onerror=canary=1>")
    page.evaluate("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
    expect(page.locator(".row pre").first).to_contain_text("{")
    harmless(page)
    page.reload()
    page.locator(".turn-end").first.wait_for()
    visit.settled()
    harmless(page)


@pytest.mark.heavy
def test_a_text_without_end_is_shown_as_far_as_it_is_seen(go: Go) -> None:
    visit = go()
    page = visit.page
    paragraphs = "\n\n".join(f"*{number}*-{'word-' * 50}" for number in range(60))
    visit.say(f"say:{paragraphs}\n\n```\n{'x' * 5000}\n\n{'y' * 200}\n```\n\n{'[' * 20_000}")
    page.locator(".turn-end").wait_for()
    page.get_by_role("region", name="Messages").evaluate("(it) => { it.scrollTop = 0; }")
    expect(page.locator(".markdown em").first).to_have_text("0")
    for section in page.locator(".section").all():
        section.scroll_into_view_if_needed()
    expect(page.locator(".markdown em").last).to_have_text("59")
    expect(page.locator("pre code")).to_have_text(f"{'x' * 5000}\n\n{'y' * 200}\n")
    # What is too much for the parser stays as it is.
    expect(page.locator(".section").last).to_contain_text("[" * 20_000)


@pytest.mark.heavy
def test_pictures_are_taken_and_small(browser: Browser, tmp_path: Path) -> None:
    taken = {each.name: each for each in pictures.take(browser, tmp_path)}
    assert set(taken) == {each.name for each in pictures.HERE.iterdir()}
    for name, place in taken.items():
        kept = [pictures.HERE / name]
        kept += [pictures.IN_PROJECTS / name] if name in pictures.SHIPPED else []
        for each in [place, *kept]:
            assert each.stat().st_size < 150_000
            with Image.open(each) as image:
                assert image.width >= 390
                # Something is to be seen: no colour has it all.
                assert (
                    max(count for count, _ in image.getcolors() or []) < image.width * image.height
                )
