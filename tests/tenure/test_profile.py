"""The profile page."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tenure.contract import Contract
from tenure.profile import render_profile
from tenure.project import Project
from tenure.snapshot import read_source
from tenure.validation import Validated, validate_frame

EVIL = "<script>alert('1')</script>\"><img src=x onerror=y>"


class Page(HTMLParser):
    """Collects tags and text; checks that every tag is closed in order."""

    VOID = frozenset({"meta", "rect", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="session")
def telco_page(telco_validated: Validated, project: Project) -> str:
    return render_profile(telco_validated, project.contract)


def test_telco(telco_page: str, project: Project) -> None:
    text = re.sub(r"\s+", " ", Page(telco_page).text)
    for expected in ("7,043 rows read", "0 bad rows (0.0%)", "26.5%", "19 features", "11 missing (0.2%)"):
        assert expected in text
    assert "None: every row keeps the contract." in text
    for column in project.contract.columns:
        assert column.name in text
    assert "Fiber optic 3,096 41.9%" in text
    assert "min 18.25" in text
    assert "max 118.75" in text
    assert "mean 64.7617" in text
    assert "row-0000001" not in telco_page


def test_it_stands_alone(telco_page: str) -> None:
    page = Page(telco_page)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    for _, attributes in page.tags:
        assert set(attributes).isdisjoint({"src", "href", "onload", "onclick"})
    assert "http" not in telco_page
    assert "url(" not in telco_page
    assert "prefers-color-scheme: dark" in telco_page


def test_each_histogram_counts_every_row(telco_page: str) -> None:
    for figure in re.findall(r"<svg.*?</svg>", telco_page, flags=re.DOTALL):
        counts = [int(number.replace(",", "")) for number in re.findall(r": ([\d,]+) rows", figure)]
        assert sum(counts) in (7043, 7032)
        assert 'role="img"' in figure
        assert re.search(r'aria-label="Histogram of \w+', figure)


def test_it_is_the_same_for_the_same_rows(
    telco_validated: Validated, telco_page: str, project: Project
) -> None:
    assert render_profile(telco_validated, project.contract) == telco_page


def test_what_comes_from_the_data_is_escaped(project: Project) -> None:
    frame = read_source(Path(project.source.uri), None, project.contract)
    frame.loc[1, "monthly_charges"] = EVIL
    frame.loc[2, "contract"] = EVIL
    html = render_profile(validate_frame(frame, project.contract), project.contract)
    page = Page(html)
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert EVIL in page.text
    assert "1 bad rows (0.01%)" in re.sub(r"\s+", " ", page.text)


@pytest.mark.parametrize(
    "rows",
    [
        {"f": [], "i": [], "s": [], "b": [], "at": []},
        {"f": [None], "i": [None], "s": [None], "b": [None], "at": [None]},
        {"f": ["3e38", "-3e38"], "i": [str(2**62), "-5"], "s": ["a", "b"], "b": "10", "at": ["1700", "2200"]},
        {"f": ["1e-300"] * 3, "i": ["0"] * 3, "s": ["x"] * 3, "b": ["0"] * 3, "at": ["2024-01-01"] * 3},
        {"f": ["1", "1.0000000000000002"], "i": ["1", "2"], "s": "xy", "b": [None, "1"], "at": [None] * 2},
    ],
)  # fmt: skip
@pytest.mark.parametrize("label", [None, "Yes"])
def test_odd_columns_can_be_drawn(
    make_contract: Callable[..., Contract], rows: dict[str, Any], label: str | None
) -> None:
    names = {"f": "float", "i": "integer", "s": "string", "b": "boolean"}
    contract = make_contract(
        *({"name": name, "type": type_, "nullable": True} for name, type_ in names.items()),
        {"name": "at", "role": "time", "type": "timestamp", "nullable": True},
    )
    size = len(rows["f"])
    frame = pd.DataFrame(
        {
            "id": [str(n) for n in range(size)],
            "left": [label] * size,
            **{k: list(v) for k, v in rows.items()},
        },
        dtype=object,
    )
    validated = validate_frame(frame, contract)
    assert validated.bad_rows == 0
    Page(render_profile(validated, contract))


def test_many_categories_are_summed_up(make_contract: Callable[..., Contract]) -> None:
    contract = make_contract({"name": "city", "type": "string"})
    frame = pd.DataFrame(
        {"id": [str(n) for n in range(100)], "left": "No", "city": [f"c{n}" for n in range(100)]}
    )
    text = Page(render_profile(validate_frame(frame, contract), contract)).text
    assert re.search(r"other values\s*92", text)
