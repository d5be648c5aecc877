"""The page in a real browser: nothing breaks its own policy, nothing overflows, it refreshes itself."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

PICTURES = os.environ.get("TENURE_TEST_PICTURES")
"""A folder for screenshots, for whoever wants to look."""

CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, .skip, .vh, noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return [...poor];
})()"""


def look(page: Any, name: str) -> None:
    if PICTURES:
        page.save(Path(PICTURES) / f"{name}.png")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("state", ["full", "empty", "failing"])
def test_nothing_overflows_and_everything_can_be_read(
    page: Any, url: str, stage: Any, width: int, dark: bool, state: str
) -> None:
    if state == "empty":
        stage.empty()
    elif state == "failing":
        stage.fail()
    page.show(f"{url}/", width, dark)
    look(page, f"{state}-{width}-{'dark' if dark else 'light'}")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask(CONTRAST) == []
    assert page.complaints == []


def test_structure_is_told_to_those_who_do_not_see(page: Any, url: str) -> None:
    page.show(f"{url}/")
    assert page.ask("document.documentElement.lang") == "en"
    assert page.ask("document.querySelectorAll('h1').length") == 1
    levels = page.ask("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = "svg:not([aria-hidden]):not([aria-label]):not([aria-labelledby])"
    assert page.ask(f"document.querySelectorAll('{unnamed}').length") == 0
    dangling = """[...document.querySelectorAll('[aria-labelledby]')]
        .filter((one) => !document.getElementById(one.getAttribute('aria-labelledby'))).length"""
    assert page.ask(dangling) == 0
    names = page.ask("[...document.querySelectorAll('main a')].map((a) => a.textContent)")
    assert len(names) == len(set(names)), "links that lead elsewhere must be called otherwise"
    assert page.ask("new Set([...document.querySelectorAll('[id]')].map((o) => o.id)).size") == page.ask(
        "document.querySelectorAll('[id]').length"
    )


def test_it_refreshes_what_changed_and_keeps_the_focus(page: Any, url: str, stage: Any, wait: Any) -> None:
    page.show(f"{url}/")
    page.ask("document.querySelector('#service-telco-churn .list a').focus()")
    page.ask("window.before = document.querySelector('#service-telco-churn')")
    stage.change_shares(50, 50)
    wait(lambda: page.ask("document.querySelector('.traffic').getAttribute('aria-label')").endswith("50 %"))
    assert page.ask("document.activeElement.closest('section').id") == "service-telco-churn"
    assert page.ask("window.before.isConnected") is False
    assert page.complaints == []


def test_a_console_that_is_gone_is_told_of(page: Any, url: str, wait: Any, stop: Any) -> None:
    page.show(f"{url}/")
    stop()
    wait(lambda: "does not answer" in page.ask("document.querySelector('#live').textContent"))
    assert page.ask("document.querySelectorAll('.service').length") == 1, "what was known stays"


def test_updates_can_be_paused(page: Any, url: str, stage: Any, wait: Any) -> None:
    page.show(f"{url}/")
    page.ask("document.querySelector('#pause').click()")
    assert page.ask("document.querySelector('#pause').ariaPressed") == "true"
    assert page.ask("document.querySelector('#live').textContent") == "updates are paused"
    page.ask("document.querySelector('#pause').click()")
    wait(lambda: page.ask("document.querySelector('#live').textContent").startswith("updates every"))


@pytest.mark.parametrize(
    "text", ["<script>window.stolen = 1</script>", "<img src=x onerror='window.stolen = 1'>", '"><b>']
)
def test_what_customers_and_people_write_is_text(page: Any, url: str, stage: Any, text: str) -> None:
    stage.write(text)
    page.show(f"{url}/")
    assert text in page.ask("document.querySelector('#board').textContent")
    assert page.ask("document.querySelectorAll('#board script, #board img').length") == 0
    assert page.ask("window.stolen === undefined")
    assert page.complaints == []


def test_a_report_can_do_nothing(page: Any, url: str, stage: Any) -> None:
    stage.report("<style>h1 {color: red}</style><h1>Drift</h1><script>document.title = 'stolen'</script>")
    page.show(f"{url}/")
    address = page.ask("document.querySelector('#service-telco-churn a[href^=\\'/reports/\\']').href")
    page.show(address)
    assert page.ask("document.querySelector('h1').textContent") == "Drift"
    assert page.ask("getComputedStyle(document.querySelector('h1')).color") == "rgb(255, 0, 0)"
    assert page.ask("document.title") == ""


def test_the_page_works_without_scripts(page: Any, url: str) -> None:
    page.show(f"{url}/", scripts=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "telco-churn" in page.ask("document.querySelector('h2').textContent")
