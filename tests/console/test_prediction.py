from __future__ import annotations

from pathlib import Path

import pytest

from console.errors import ConsoleError
from console.prediction import _read_rows
from tenure.contract import Contract

CONTRACT = Contract.model_validate(
    {
        "columns": [
            {"name": "account", "role": "id", "type": "string"},
            {"name": "left", "role": "label", "type": "boolean"},
            {"name": "plan", "type": "string"},
            {"name": "months", "type": "integer", "minimum": 0},
        ]
    }
)


def test_a_table_without_labels_is_read_and_bad_rows_are_named(tmp_path: Path):
    file = tmp_path / "customers.csv"
    file.write_text("account,plan,months\na,basic,3\nb,plus,-1\nc,plus,x\n", encoding="utf-8")
    ids, rows, bad = _read_rows(file, None, CONTRACT)
    assert (ids, rows) == (["a"], [{"plan": "basic", "months": 3}])
    assert [(one["row"], one["column"], one["rule"]) for one in bad] == [
        (1, "months", "minimum"),
        (2, "months", "type"),
    ]


def test_a_json_row_keeps_its_id():
    ids, rows, bad = _read_rows(None, '{"account": "a", "plan": "basic", "months": 3}', CONTRACT)
    assert (ids, rows, bad) == (["a"], [{"plan": "basic", "months": 3}], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("3", "JSON object"),
        ("[]", "JSON object"),
        ('{"moths": 3}', "moths: not in the contract"),
    ],
)
def test_a_wrong_row_is_told(text, message):
    with pytest.raises(ConsoleError, match=message) as caught:
        _read_rows(None, text, CONTRACT)
    assert caught.value.code == 3
