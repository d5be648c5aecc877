"""Broken IR of any kind is refused by name or left to the runner; it never surprises the server."""

from __future__ import annotations

import contextlib
import copy

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded.runs.check import check_parameters, check_spec
from embedded.runs.errors import BadRequestError
from embedded.runs.graph import canonical_path, iteration_of, list_steps, task_id

JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([]), st.just({"a": 1}))
RUN = "9a82875a-415c-4844-83ca-600459dc59d9"


def places(document, prefix=()):
    """Yield the paths of all values in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from places(value, (*prefix, key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_any_change_of_the_ir_passes_or_is_refused(packages, data):
    name = data.draw(st.sampled_from(["branch", "everything"]))
    spec = copy.deepcopy(read(packages[name]))
    path = data.draw(st.sampled_from(sorted(places(spec), key=str)))
    place = spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(JUNK)
    with contextlib.suppress(BadRequestError):
        check_spec(spec)
        check_parameters(spec, {"left": 1})
        list_steps(spec)


CACHE = {}


def read(path):
    if path not in CACHE:
        CACHE[path] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return CACHE[path]


def test_steps_come_in_an_order_in_which_they_can_run(packages):
    names = [step.name for step in list_steps(read(packages["branch"]))]
    assert names == ["add", "decide", "say", "say-2"]
    steps = list_steps(read(packages["everything"]))
    found = [step.path[-1] for step in steps]
    assert sorted(found) == ["add", "count", "flaky", "report"]
    assert found.index("count") < found.index("add")
    assert found[-1] == "report"
    assert all(step.path[0] == "exit-handler-1" for step in steps[:-1])


def test_paths_of_iterations():
    path = ("exit-handler-1", "for-loop-2-iteration-10", "for-loop-3-iteration-0", "train")
    assert canonical_path(path) == ("exit-handler-1", "for-loop-2", "for-loop-3", "train")
    assert iteration_of(path) == (10, 0)
    assert task_id(RUN, path) == task_id(RUN, path) != task_id(RUN, canonical_path(path))
