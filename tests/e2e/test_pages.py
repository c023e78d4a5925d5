"""The pages in a real browser, as a person uses them: judged, edited, reloaded, killed, gone on with; and looked at in both widths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from selenium.webdriver import Keys

from finetune import data
from finetune.pages import report
from tests.browser import CHROMIUM, DRIVER, MISSING, Browser
from tests.finetune.pages.endpoint import CANDIDATE, LIVE, FakeEndpoint
from tests.finetune.pages.evaluations import EVIL, evaluation, verdict
from tests.processes import ROOT, Served, eventually, stub_python, write_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

REVIEW = ["-m", "gateway", "data", "review"]
JUDGE = ["-m", "finetune.evaluate", "ab"]
QUESTION, ANSWER = "배송은 언제 시작되나요? 사흘이 지났습니다.", "오늘 오후에 출고되어 내일 오전에 도착할 예정입니다."
ROWS: list[dict[str, Any]] = [
    {"instruction": QUESTION, "output": ANSWER},
    {"instruction": f"question {EVIL}", "output": f"</textarea></script>{EVIL}"},
    {"instruction": "مرحبا، أين طلبي؟", "output": "👩‍👩‍👧‍👦 طلبك في الطريق \u202e إليك"},
    {"instruction": "a long one", "output": "x" * 100_000},
    {
        "messages": [
            {"role": "user", "content": "lines?"},
            {"role": "assistant", "content": "one\r\ntwo\r\nthree words here"},
        ]
    },
    {"instruction": "무엇인가요?", "output": "지워질 답변입니다, 안녕히 계세요."},
]
BUTTONS = {"1": "one", "2": "two", "0": "neither"}
SHOWN = "return document.getElementById('judging').innerText"
CONTRAST = """
const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility() || element.disabled || element.closest(':disabled, desc')) continue;
  const style = getComputedStyle(element);
  const ink = parse(element.closest('svg') ? style.fill : style.color);
  let back = null;
  for (let at = element; at && !back; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor);
    if (color[3] > 0) back = color;
  }
  const pair = [light(ink), light(back || [255, 255, 255])].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < 4.5) found.push(`${element.tagName}.${element.className}: ${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
}
return found;
"""


@pytest.fixture
def browsing(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """A function that opens browsers; they end with the test."""
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    opened: list[Browser] = []

    def open_one(**options: Any) -> Browser:
        opened.append(Browser(tmp_path / f"profile{len(opened)}", **options))
        return opened[-1]

    yield open_one
    for browser in opened:
        browser.__exit__(None, None, None)


class PageCommand:
    """A command that shows a page, in a process of its own; `url` is what it printed. A context manager."""

    def __init__(self, *argv: object, folder: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, argv)], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert "http://127.0.0.1:" in first, first + self.process.stderr.read()
        self.url = first.split()[-1]

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit code and what it said, after a signal or by itself."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_sound(browser: Browser) -> None:
    """Nothing of the data ran, the console is silent, all text can be read, nothing sticks out."""
    assert browser.run("return window.hacked") is None
    assert browser.complaints() == []
    assert browser.overflow() == 0
    assert browser.run(CONTRAST) == []


# Review -----------------------------------------------------------------------------------------------------------------


def test_rows_are_kept_edited_and_dropped_through_a_kill(browsing: Callable[..., Browser], tmp_path: Path) -> None:
    rows, out = written(ROWS, tmp_path / "rows.jsonl"), tmp_path / "kept.jsonl"
    browser = browsing()
    with PageCommand(*REVIEW, rows, "--out", out, folder=tmp_path) as command:
        browser.open(command.url)
        assert ANSWER in browser.element("#row").text
        browser.press("k")
        browser.wait_text("#title", "Row 2")
        assert EVIL in browser.element("#row").text
        browser.press("e")
        fields = browser.element("#editor").find_elements("css selector", "textarea")
        assert [field.get_property("value") for field in fields] == [ROWS[1]["instruction"], ROWS[1]["output"]]
        browser.write("#field-1", "")
        browser.press_with_control(Keys.ENTER)
        assert browser.wait_text("#problem", "output is empty")
        browser.write("#field-1", "고친 답변입니다.\nSecond line <b>")
        browser.press_with_control(Keys.ENTER)
        browser.wait_text("#title", "Row 3")
        assert_sound(browser)
        browser.driver.refresh()
        browser.wait_text("#title", "Row 3")
        browser.press("e")
        browser.element("#field-1")
        browser.press(Keys.ESCAPE, "d")
        browser.wait_text("#title", "Row 4")
        command.end(signal.SIGKILL)
        browser.press("k")
        browser.wait_text("#problem", "The command in the terminal has ended")
        assert "ERR_CONNECTION_REFUSED" in browser.complaints()[0]
    assert not out.exists()
    with PageCommand(*REVIEW, rows, "--out", out, folder=tmp_path) as command:
        browser.open(command.url)
        browser.wait_text("#title", "Row 4")
        browser.wait_text("#count", "3 of 6 decided: 1 kept, 1 edited, 1 dropped")
        browser.press("k")
        browser.wait_text("#title", "Row 5")
        browser.press("e")
        browser.element("#field-1")
        browser.press_with_control(Keys.ENTER)
        browser.wait_text("#title", "Row 6")
        browser.click("#drop")
        browser.wait_text("#status", "All rows are decided")
        browser.press(Keys.ARROW_LEFT)
        browser.wait_text("#title", "Row 6")
        browser.press("u")
        browser.wait_text("#decision", "undecided")
        browser.click("#finish")
        browser.wait_text("#ending", "1 rows are undecided")
        assert_sound(browser)
        browser.click("#ending button:nth-of-type(2)")
        browser.wait_text("#ending", "4 rows")
        code, said, err = command.end()
        assert (code, "kept.jsonl: 4 rows" in said, "Traceback" in err) == (0, True, False)
    assert browser.complaints() == []
    edited = {**ROWS[1], "output": "고친 답변입니다.\nSecond line <b>"}
    assert lines(out) == [ROWS[0], edited, ROWS[3], ROWS[4]], "an edit that changed nothing keeps the ends of lines"


def test_review_reads_well_on_a_phone_in_the_dark(browsing: Callable[..., Browser], tmp_path: Path) -> None:
    browser = browsing(width=400, is_dark=True)
    with PageCommand(
        *REVIEW, written(ROWS, tmp_path / "rows.jsonl"), "--out", tmp_path / "o", folder=tmp_path
    ) as command:
        browser.open(command.url)
        for number in range(1, len(ROWS) + 1):
            browser.wait_text("#title", f"Row {number}")
            assert_sound(browser)
            browser.click("#edit")
            browser.element("#editor")
            assert_sound(browser)
            browser.click("#cancel")
            browser.click("#keep")
        browser.wait_text("#status", "All rows are decided")
        code, out, err = command.end(signal.SIGINT)
        assert (code, "is not written yet" in out, "Traceback" in err) == (1, True, False)


# Blind judging ----------------------------------------------------------------------------------------------------------


def says(style: str) -> Callable[[str], str]:
    def answer(said: str) -> str:
        return "the same" if said == "same" else f"{style}: {said} {EVIL} {'word ' * 20_000 if said == 'long' else ''}"

    return answer


def judged(folder: Path, url: str, *more: object) -> PageCommand:
    argv = [
        *JUDGE,
        "--url",
        url,
        "--models",
        f"{LIVE},{CANDIDATE}",
        "--prompts",
        folder / "prompts.txt",
        "--session",
        "look",
    ]
    return PageCommand(*argv, *more, folder=folder, env={"FORGEGATE_HOME": str(folder / "no-gateway")})


def vote(browser: Browser, key: str) -> tuple[str, str]:
    """Both answers, the preferred one first; waits until the next pair is there."""
    browser.wait_enabled(f"#{BUTTONS[key]}")
    first, second = (browser.element(css).text for css in ("#first", "#second"))
    pair = browser.run(SHOWN)
    browser.press(key)
    eventually(lambda: browser.run(SHOWN) != pair)
    return (first, second) if key == "1" else (second, first)


def test_answers_are_judged_blind_through_a_reload_and_a_kill(browsing: Callable[..., Browser], tmp_path: Path) -> None:
    prompts = ["same", "long", f"tags {EVIL}", "مرحبا", *(f"question {number}" for number in range(6))]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    browser, chosen = browsing(), []
    with FakeEndpoint({LIVE: says("curt"), CANDIDATE: says("kind")}) as endpoint:
        with judged(tmp_path, endpoint.url) as command:
            browser.open(command.url)
            browser.element("#first")
            for key in ("1", "2", "1"):
                source = browser.source() + browser.run("return fetch('view').then((reply) => reply.text())")
                assert not [
                    word for word in (LIVE, "support@", "candidate", "winner") if word in source.replace(EVIL, "")
                ]
                chosen.append(vote(browser, key)[0].split(":")[0])
            assert_sound(browser)
            browser.press("u")
            browser.wait_text("#count", "of 10")
            before = (browser.element("#prompt").text, browser.element("#first").text)
            browser.driver.refresh()
            browser.element("#first")
            assert (browser.element("#prompt").text, browser.element("#first").text) == before
            chosen.pop()
            command.end(signal.SIGKILL)
        with judged(tmp_path, endpoint.url, "--json") as command:
            browser.complaints()
            browser.open(command.url)
            browser.element("#first")
            assert (browser.element("#prompt").text, browser.element("#first").text) == before
            browser.resize(400)
            assert_sound(browser)
            chosen += [vote(browser, key)[0].split(":")[0] for key in "21212"]
            browser.press("x")
            browser.click("#neither")
            vote(browser, "0")
            browser.wait_text("#status", "All pairs are judged")
            browser.click("#finish")
            assert f"{CANDIDATE} against demo@0123456789ab" in browser.element("#result").text
            assert_sound(browser)
            code, out, err = command.end()
    assert (code, "Traceback" in err) == (0, False)
    result, count = json.loads(out), Counter(chosen)
    assert (result["wins"], result["losses"], result["ties"], result["identical"]) == (
        count["kind"],
        count["curt"],
        3,
        1,
    )
    assert result["unsent"] == 10
    entries = lines(tmp_path / "ab/look.jsonl")
    votes = [entry for entry in entries if entry.get("kind") == "vote" and not entry["is_identical"]]
    assert Counter(entry["winner"] for entry in votes) - Counter({"tie": 2}) >= Counter(
        {"candidate": count["kind"], "live": count["curt"]}
    )
    assert len(endpoint.asked) == 20, "answers are asked for once"


def test_votes_are_kept_in_the_gateways_store(browsing: Callable[..., Browser], tmp_path: Path) -> None:
    pools = "".join(
        f"  - name: {name}\n    pools:\n      - engine: llamacpp\n"
        f"        model: {write_gguf(tmp_path / f'{name}.gguf', source_digest=digit * 64)}\n"
        f"        python: {stub_python(tmp_path, '--tokens', digit)}\n"
        for name, digit in (("demo", "3"), ("support", "5"))
    )
    config = tmp_path / "forgegate.yaml"
    config.write_text(f"server: {{port: 0, workers: 1, admin: {{port: 0}}}}\nmodels:\n{pools}")
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    with Served(tmp_path / "home", "--config", str(config)) as served:
        served.wait_ready()
        browser = browsing()
        argv = [
            *JUDGE,
            "--models",
            "demo,support",
            "--prompts",
            tmp_path / "prompts.txt",
            "--session",
            "look",
            "--who",
            "anna",
        ]
        with PageCommand(*argv, folder=tmp_path, env={"FORGEGATE_HOME": str(tmp_path / "home")}) as command:
            browser.open(command.url)
            browser.element("#first")
            vote(browser, "1")
            vote(browser, "0")
            code, out, err = command.end(signal.SIGINT)
        assert (code, "only" in out, "Traceback" in err) == (0, False, False)
        kept = served.admin("GET", "/admin/v1/votes?session=look")["data"]
    entries = [entry for entry in lines(tmp_path / "ab/look.jsonl") if entry.get("kind") == "vote"]
    assert [(one["prompt_digest"], one["choice"]) for one in kept] == [
        (one["prompt"], one["winner"]) for one in entries
    ]
    assert {one["who"].split()[0] for one in kept} == {"anna"}
    assert {one["candidate"].split("@")[0] for one in kept} == {"support"}


class Hostile(BaseHTTPRequestHandler):
    """A page of another site that knows even the secret path, and votes."""

    target = ""
    page = """<!doctype html><title>hostile</title><script>
        (async () => {
          for (const type of ['text/plain', 'application/json'])
            for (const mode of ['no-cors', 'cors'])
              await fetch('%s' + 'finish', {method: 'POST', mode, headers: {'content-type': type}, body: '{}'}).catch(() => {});
          await fetch('%s' + 'view').then((reply) => reply.text()).then((text) => { window.stolen = text; }).catch(() => {});
          document.title = 'tried';
        })();</script>"""

    def do_GET(self) -> None:
        content = (self.page % (self.target, self.target)).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def test_another_site_cannot_judge_or_read(browsing: Callable[..., Browser], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n")
    browser = browsing()
    other = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=other.serve_forever, args=(0.05,))
    thread.start()
    try:
        with (
            FakeEndpoint({LIVE: says("curt"), CANDIDATE: says("kind")}) as endpoint,
            judged(tmp_path, endpoint.url) as command,
        ):
            Hostile.target = command.url
            browser.open(f"http://127.0.0.1:{other.server_address[1]}/")
            eventually(lambda: browser.driver.title == "tried")
            assert browser.run("return window.stolen") is None
            browser.complaints()
            browser.open(command.url.replace("127.0.0.1", "localhost"))
            vote(browser, "1")
            browser.wait_text("#status", "All pairs are judged")
            assert_sound(browser)
            assert command.end(signal.SIGINT)[0] == 0
    finally:
        other.shutdown()
        other.server_close()
        thread.join()


# Reports ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_reports_read_well_at_both_widths(browsing: Callable[..., Browser], tmp_path: Path, is_dark: bool) -> None:
    found = evaluation()
    report.write(found, tmp_path / "evaluation.html", verdict(found))
    rows = written([*ROWS, ROWS[0], {"instruction": EVIL, "output": ""}], tmp_path / "rows.jsonl")
    data.main(["doctor", str(rows), "--report", str(tmp_path / "doctor")])
    browser = browsing(is_dark=is_dark)
    for name in ("evaluation", "doctor"):
        browser.open((tmp_path / f"{name}.html").as_uri())
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for width in (1280, 400):
            browser.resize(width)
            assert_sound(browser)
            assert browser.run(
                "return [...document.querySelectorAll('svg text')].filter((one) => one.getBoundingClientRect().height < 9).length"
            ) == 0  # fmt: skip
        headers = browser.driver.find_elements("css selector", "table th:not([scope])")
        assert headers == []
