from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from installer.kubectl import dump, load

DOCUMENTS = st.lists(
    st.fixed_dictionaries({"kind": st.just("ConfigMap"), "data": st.dictionaries(st.text(), st.text())})
)


@given(DOCUMENTS)
def test_documents_are_read_as_they_were_written(documents: list[dict[str, Any]]) -> None:
    assert json.loads(dump(documents)) == {"apiVersion": "v1", "kind": "List", "items": documents}


def test_lists_are_taken_apart_and_empty_documents_left_out() -> None:
    pod = {"kind": "Pod"}
    assert load(f"---\nkind: Job\n---\n{dump([pod, pod])}\n---\n") == [{"kind": "Job"}, pod, pod]


def test_words_that_go_reads_otherwise_are_in_quotes() -> None:
    values = {"a": "y", "b": "1e3", "c": "0o17", "n": "n"}
    written = dump([{"kind": "ConfigMap", "data": values}])
    assert json.loads(written)["items"][0]["data"] == values
