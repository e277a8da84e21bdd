"""The page of a report in a browser: silent, alone, fast, and within reach of a keyboard."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.recording import build_record
from harness.reporting.gather import Gathered, Problem, Seen, gather
from harness.reporting.page import page
from harness.reporting.payload import all_cells, payload
from tests.harness.browser import Tab, browser, find
from tests.harness.facts import dense_arm, facts, outcome, quest_arm, system
from tests.harness.synthetic import sweep

PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on the path")
ROOT = Path(__file__).parents[2]
MOST_MS = 3000
EVIL = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
SECTIONS = ["verdicts", "best", "lengths", "latency", "moves", "split", "roof", "history", "table"]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        opened.resize(1280, 900)
        yield opened


def written(folder: Path, gathered: Gathered) -> Path:
    path = folder / "report.html"
    path.write_text(page(payload(gathered, all_cells(gathered), []), "report"))
    return path


def of(*seen: Seen) -> Gathered:
    return Gathered(sources=("runs",), seen=list(seen))


def assert_silent_and_alone(tab: Tab, path: Path) -> float:
    opened = tab.open(path)
    assert opened.complaints == []
    assert opened.requests == [path.resolve().as_uri()]
    return opened.load_ms


@pytest.mark.parametrize("num_cells", [0, 1, 30])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_is_silent_alone_and_as_wide_as_the_screen(
    tab: Tab, tmp_path: Path, num_cells: int, width: int
) -> None:
    tab.resize(width, 800, phone=width < 600)
    assert_silent_and_alone(tab, written(tmp_path, of(*sweep(num_cells, num_trials=2))))
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    sections = tab.evaluate("[...document.querySelectorAll('section')].map((one) => one.id)")
    assert sections == (SECTIONS if num_cells else ["verdicts", "best", "history"])
    assert tab.evaluate("document.querySelectorAll('#best path.mark').length > 0") == (
        num_cells > 0
    )
    assert ("The store is empty" in tab.evaluate("document.body.innerText")) == (num_cells == 0)


def test_two_thousand_cells_open_within_three_seconds(tab: Tab, tmp_path: Path) -> None:
    path = written(tmp_path, of(*sweep(2000)))
    # The least of three: other processes share the cores.
    assert min(assert_silent_and_alone(tab, path) for _ in range(3)) < MOST_MS
    assert "2,000 cells" in tab.evaluate("document.querySelector('header').innerText")


def test_what_was_published_is_drawn(tab: Tab, tmp_path: Path) -> None:
    results = ROOT / "results"
    found = gather(
        [
            results / "published",
            results / "published/algorithms/algorithms.json",
            results / "benchmarks/algorithms.json",
        ]
    )
    assert_silent_and_alone(tab, written(tmp_path, found))
    for part in ("best", "latency", "moves", "split", "roof"):
        assert tab.evaluate(
            f"document.querySelectorAll('#{part} svg path, #{part} svg rect').length"
        )


def test_a_page_may_not_ask_for_anything_even_if_told_to(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, of()))
    told = "fetch('data:,x').then(() => 'went out', () => 'was stopped')"
    # An address that needs no network: only the policy of the page can refuse it.
    assert tab.evaluate(told) == "was stopped"
    tab.evaluate(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(EVIL)})")
    assert (
        tab.evaluate("new Promise((done) => setTimeout(() => done(document.title), 300))")
        == "report"
    )


def test_what_a_record_says_is_never_run(tab: Tab, tmp_path: Path) -> None:
    arm = replace(quest_arm(), name=EVIL)
    answered = replace(arm, outcomes=tuple(replace(one, answer=EVIL) for one in arm.outcomes))
    evil = system().model_copy(update={"algo": EVIL, "tier": EVIL, "notes": (EVIL,)})
    given = facts(arms=(dense_arm(), answered), system=evil, overrides=(EVIL,))
    record = build_record(given)
    failed = build_record(replace(given, arms=(), status="crash"))
    one, two = (
        Seen(place=EVIL, record=each, samples=each.samples, requests=())
        for each in (record, failed)
    )
    found = replace(of(one, two), damaged=[Problem(place=EVIL, reason=EVIL)])
    assert_silent_and_alone(tab, written(tmp_path, found))
    tab.evaluate("document.querySelector('.actions button').click()")
    assert tab.evaluate("document.title") == "report"
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    assert "<img src=x" in tab.evaluate("document.querySelector('dialog').innerText")


def test_reasons_stand_before_results(tab: Tab, tmp_path: Path) -> None:
    bad = build_record(facts(status="timeout"))
    seen = Seen(place="sweep/a/b", record=bad, samples=(), requests=())
    found = replace(of(seen), damaged=[Problem(place="sweep/c/d", reason="cut off")])
    tab.open(written(tmp_path, found))
    text = tab.evaluate("document.querySelector('#verdicts').innerText")
    assert "0 of 1 trial may be used. Not: 1 damaged, 1 timeout." in text
    assert "the run ended as timeout" in text
    assert "cut off" in text
    assert "No cell has a trial that may be used" in tab.evaluate("document.body.innerText")


def test_a_limit_changes_the_winner_and_the_words(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, of(*sweep(60))))
    words = "document.querySelector('.answer strong').innerText"
    free = tab.evaluate(words)
    slide = (
        "((n, at) => { const one = document.querySelectorAll('.slider input')[n]; one.value = at;"
        " one.dispatchEvent(new Event('input')); })"
    )
    tab.evaluate(f"{slide}(1, 0)")
    few = tab.evaluate(words)
    assert few != free
    assert " 64 " in few, "the fewest bytes are those of the smallest budget"
    tab.evaluate(f"{slide}(3, 999)")
    assert tab.evaluate(words) == "Nothing that was measured fits these limits. "
    assert "without the limit" in tab.evaluate("document.querySelector('.answer').innerText")


def test_the_table_filters_sorts_and_leaves(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, of(*sweep(90))))
    cells = (
        "[...document.querySelectorAll('.cells tbody tr')].map((row) => row.cells[%d].innerText)"
    )
    tab.evaluate(
        "{ const one = document.querySelector('#table input'); one.value = 'quest hbm+cpu';"
        " one.dispatchEvent(new Event('input')); }"
    )
    names = tab.evaluate(cells % 0)
    assert names
    assert all(name.startswith("quest") for name in names)
    before = [float(text.rstrip("\u00d7")) for text in tab.evaluate(cells % 7)]
    tab.evaluate("document.querySelectorAll('.cells thead button')[7].click()")
    ratios = [float(text.rstrip("\u00d7")) for text in tab.evaluate(cells % 7)]
    assert ratios == sorted(before) != before
    assert tab.evaluate("document.querySelectorAll('.cells th')[7].ariaSort") == "ascending"
    link = "(() => { const a = document.querySelector('#table a');"
    link += " a.addEventListener('click', (event) => event.preventDefault()); a.click();"
    link += " return decodeURIComponent(a.href); })()"
    lines = tab.evaluate(link).splitlines()
    assert lines[0].startswith('data:text/csv;charset=utf-8,"algorithm","tier"')
    assert len(lines) == 1 + len(names)


def test_a_keyboard_reaches_a_cell_and_leaves_it(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, of(*sweep(10))))
    active = "document.activeElement"
    kinds = set()
    for _ in range(60):
        tab.press("Tab")
        kinds.add(
            tab.evaluate(f"{active}.getAttribute('class') || {active}.type || {active}.tagName")
        )
        outline = f"getComputedStyle({active})"
        visible = f"{outline}.outlineStyle !== 'none' || {outline}.strokeWidth === '4px'"
        assert tab.evaluate(f"{visible} || {outline}.strokeWidth !== '1px'"), tab.evaluate(
            f"{active}.outerHTML.slice(0, 200)"
        )
        if tab.evaluate(f"{active}.matches('#best path.mark')"):
            break
    assert {"select-one", "radio", "range", "mark"} <= kinds
    tab.press("Enter")
    assert tab.evaluate("document.querySelector('dialog').open")
    assert "python harness/run.py algo=" in tab.evaluate("document.querySelector('pre').innerText")
    tab.press("Escape")
    assert not tab.evaluate("document.querySelector('dialog').open")
    assert tab.evaluate(
        "[...document.querySelectorAll('#moves .hit-area')].every(({tabIndex: i}) => !i)"
    )


def test_light_and_dark_are_the_system_s_until_one_is_chosen(tab: Tab, tmp_path: Path) -> None:
    path = written(tmp_path, of(*sweep(1)))
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = []
    for scheme in ("light", "dark"):
        tab.prefer(scheme)
        tab.open(path)
        colours.append(tab.evaluate(paper))
        tab.evaluate("document.querySelector('.theme').click()")
        colours.append(tab.evaluate(paper))
    assert colours == [
        "rgb(255, 255, 255)",
        "rgb(20, 23, 26)",
        "rgb(20, 23, 26)",
        "rgb(255, 255, 255)",
    ]


def test_one_request_is_enough_for_a_page(tab: Tab, tmp_path: Path) -> None:
    alone = (outcome("r0", token_times_s=(1.1,), num_output_tokens=1),)
    arms = (replace(dense_arm(), outcomes=alone), replace(quest_arm(), outcomes=alone))
    record = build_record(facts(arms=arms, planned_uids=("r0",)))
    seen = Seen(place="one", record=record, samples=record.samples, requests=())
    assert_silent_and_alone(tab, written(tmp_path, of(seen)))
