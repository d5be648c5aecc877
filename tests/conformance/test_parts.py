"""The kit's parts: messages, datatypes, the strict reader, the generator, the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import EXAMPLE, GOOD, INPUTS, NAME, READER
from tiny_server import Mode, run_tiny

from oip_conformance.command import main
from oip_conformance.datatypes import DATATYPES, Datatype, holds, pack, unpack
from oip_conformance.errors import BrokenError, UsageError
from oip_conformance.example import flatten, guess_example, nest, parse_example
from oip_conformance.fuzzing import fuzz
from oip_conformance.messages import MESSAGES
from oip_conformance.rest import RestRequest
from oip_conformance.session import open_session
from oip_conformance.target import Target


@pytest.fixture
def example(tmp_path: Path) -> Path:
    file = tmp_path / "example.json"
    file.write_bytes(GOOD)
    return file


def values_of(datatype: Datatype) -> st.SearchStrategy[Any]:
    if datatype.kind == "text":
        return st.text(max_size=8)
    if datatype.kind == "bool":
        return st.booleans()
    if datatype.kind == "int":
        return st.integers(datatype.low, int(datatype.high))
    return st.floats(width=datatype.size * 8, allow_nan=False, allow_infinity=False)


@given(st.data(), st.sampled_from(sorted(DATATYPES)))
def test_what_is_packed_is_unpacked(data: st.DataObject, name: str) -> None:
    datatype = DATATYPES[name]
    values = data.draw(st.lists(values_of(datatype), max_size=6))
    raw = pack(datatype, values)
    assert unpack(datatype, raw) == values
    assert all(holds(datatype, value) for value in values)
    if datatype.size:
        assert len(raw) == datatype.size * len(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INT8", 128),
        ("UINT8", -1),
        ("INT64", 2**63),
        ("INT64", 1.0),
        ("INT64", True),
        ("FP32", 1e39),
        ("FP64", float("nan")),
        ("FP64", float("inf")),
        ("FP64", 10**400),
        ("FP64", "1"),
        ("BOOL", 1),
        ("BYTES", 1),
        ("BYTES", None),
    ],
)
def test_a_datatype_does_not_hold_others(name: str, value: Any) -> None:
    assert not holds(DATATYPES[name], value)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_what_is_nested_is_flattened(shape: list[int]) -> None:
    count = 1
    for size in shape:
        count *= size
    values = list(range(count))
    assert flatten(nest(values, shape)) == values


def test_the_messages_are_those_of_the_protocol_and_clash_with_none() -> None:
    """In a process of its own: the other packages' messages enter protobuf's default pool."""
    script = """
from tritonclient.grpc import service_pb2 as theirs
from oip_conformance.messages import MESSAGES
ours = MESSAGES["ModelInferRequest"](model_name="m", id="1", raw_input_contents=[b"a"])
ours.parameters["p"].double_param = 1.5
entry = ours.inputs.add(name="x", datatype="FP64", shape=[1, -1])
entry.contents.fp64_contents.append(2.5)
entry.parameters["q"].string_param = "s"
read = theirs.ModelInferRequest.FromString(ours.SerializeToString())
assert (read.model_name, read.inputs[0].contents.fp64_contents[0]) == ("m", 2.5), read
assert read.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)
for name, kind in MESSAGES.items():
    other = theirs
    for part in name.split("."):
        other = getattr(other, part)
    known = {field.name: field.number for field in other.DESCRIPTOR.fields}
    mine = {field.name: field.number for field in kind.DESCRIPTOR.fields}
    assert known.items() <= mine.items(), name
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_example_is_guessed_from_the_metadata() -> None:
    assert [one.shape for one in guess_example(INPUTS).inputs] == [(1, 2), (1,), (1,), (1,), (1,), (1,)]
    with pytest.raises(UsageError, match="--example"):
        guess_example([])


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "no inputs|not a V2"),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [{"name": "a", "shape": [2], "datatype": "INT64", "data": [1]}]}, "shape"),
        ({"inputs": [{"name": "a", "shape": [1], "datatype": "INT64", "data": [None]}]}, "None"),
        ({"inputs": [{"name": "a", "shape": [1], "datatype": "FLOAT", "data": [1]}]}, "FLOAT"),
    ],
)
def test_an_example_has_to_be_a_good_request(document: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_example(document, "here")


def test_the_reader_understands_the_good_request() -> None:
    reading = READER.read_rest(RestRequest(GOOD))
    assert reading.example == EXAMPLE
    assert not reading.coerced


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: inputs.pop(),
        lambda inputs: inputs.append(inputs[0]),
        lambda inputs: inputs[0].update(name="other"),
        lambda inputs: inputs[1].update(shape=[2]),
        lambda inputs: inputs[1].update(shape=[True]),
        lambda inputs: inputs[1].update(data=["a"]),
        lambda inputs: inputs[5].update(data=[400]),
        lambda inputs: inputs[0].update(shape=[2, 1]),
        lambda inputs: inputs[0].update(data=[[1.5], [2.0]]),
        lambda inputs: inputs[2].update(datatype="bytes"),
    ],
)
def test_the_reader_refuses_a_spoilt_request(change: Any) -> None:
    document = json.loads(GOOD)
    change(document["inputs"])
    with pytest.raises(BrokenError):
        READER.read_rest(RestRequest(json.dumps(document).encode()))


def test_the_reader_says_when_something_had_to_be_converted() -> None:
    document = json.loads(GOOD)
    document["inputs"][1]["data"] = ["3"]
    reading = READER.read_rest(RestRequest(json.dumps(document).encode()))
    assert reading.coerced
    assert reading.example == EXAMPLE


def open_tiny(server: Any, example: Path) -> Any:
    return open_session(Target(server.url, server.address, NAME, example, seconds=5))


def test_generated_requests_find_nothing_on_a_server_that_keeps_the_protocol(example: Path) -> None:
    with run_tiny(Mode.RIGHT) as server, open_tiny(server, example) as session:
        tally = fuzz(session, 400, seed=7)
    assert [(miss.case.note, miss.came) for miss in tally.misses] == []
    outcomes = {outcome for _, outcome in tally.outcomes}
    assert {"right 200", "refused"} <= outcomes
    assert {transport for transport, _ in tally.outcomes} == {"rest", "binary", "grpc"}


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        (Mode.FAILS, "5xx"),
        (Mode.ACCEPTS, "wrong 200"),
        (Mode.GARBLES, "wrong 200"),
        (Mode.MUTE, "no error message"),
        (Mode.CLOSES, "hang/closed"),
    ],
)
def test_generated_requests_find_what_is_wrong(mode: Mode, failure: str, example: Path) -> None:
    with run_tiny(mode) as server, open_tiny(server, example) as session:
        tally = fuzz(session, 60, seed=7)
    assert failure in {miss.failure for miss in tally.misses}


def test_the_same_seed_makes_the_same_requests(example: Path) -> None:
    from oip_conformance.generator import Generator

    def dump(request: Any) -> bytes:
        if isinstance(request, RestRequest):
            return request.body
        message = request.message
        return message if isinstance(message, bytes) else message.SerializeToString(deterministic=True)

    with run_tiny(Mode.RIGHT) as server, open_tiny(server, example) as session:
        one, same, other = (Generator(session, seed) for seed in (3, 3, 4))
        made = [dump(one.make(number).request) for number in range(50)]
        # Number 20 is the same without those before it.
        assert dump(same.make(20).request) == made[20]
        assert [dump(other.make(number).request) for number in range(50)] != made


def test_the_command_writes_scorecards_and_its_code_says_the_result(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"--json": tmp_path / "card.json", "--markdown": tmp_path / "card.md"}
    with run_tiny(Mode.RIGHT) as server:
        flags = [part for key, file in files.items() for part in (key, str(file))]
        assert (
            main([server.url, "--grpc", server.address, "--model", NAME, "--example", str(example), *flags])
            == 0
        )
    said = capsys.readouterr().out
    assert "every binding rule is kept" in said
    card = json.loads(files["--json"].read_text())
    assert card["ok"]
    assert {check["verdict"] for check in card["checks"]} == {"pass"}
    assert all(check["clause"] and check["source"] and check["rule"] for check in card["checks"])
    assert "| malformed gRPC |" in files["--markdown"].read_text()


def test_the_command_fails_when_a_binding_rule_is_broken(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_tiny(Mode.ACCEPTS) as server:
        assert main([server.url, "--model", NAME, "--example", str(example), "--timeout", "2"]) == 1
        said = capsys.readouterr().out
        assert main([server.url, "--model", NAME, "--example", str(example), "--fuzz", "30"]) == 1
    assert "wrong 200" in said
    assert "OIP REST: Request Input: shape" in said
    assert "30 requests of seed 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://127.0.0.1:1"],
        ["http://127.0.0.1:1"],
        ["URL", "--example", "no-such-file.json"],
        ["URL", "--model", "no-such-model"],
    ],
)
def test_wrong_usage_is_told_with_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with run_tiny(Mode.RIGHT) as server:
        assert main([server.url if one == "URL" else one for one in arguments]) == 2
    assert capsys.readouterr().err.startswith("oip-conformance: ")


def test_a_server_that_does_not_answer_is_told_in_time(example: Path) -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UsageError, match="no answer within"), open_session(Target(url, seconds=0.3)):
            pass
        assert time.monotonic() - began < 5


def test_the_model_is_found_where_the_server_lists_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from oip_conformance import session as module

    client: Any = SimpleNamespace(get=lambda path: SimpleNamespace(status=404))
    replies = {"v2/models": {"models": ["a"]}}
    monkeypatch.setattr(module, "_look", lambda _, path: replies.get(path, {}))
    assert module._find_model(client) == "a"
    replies["v2/models"] = {"models": ["a", "b"]}
    with pytest.raises(UsageError, match="a, b: say which with --model"):
        module._find_model(client)


def test_the_kit_can_be_installed_alone(tmp_path: Path) -> None:
    """The wheel holds the package alone, and has the command."""
    import zipfile

    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(Path(__file__).parent)).build(directory=str(tmp_path))
    with zipfile.ZipFile(built) as wheel:
        names = wheel.namelist()
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "oip-conformance = oip_conformance.command:main" in wheel.read(entry).decode()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"oip_conformance"}


def test_tenures_own_wheel_brings_the_kit(tmp_path: Path) -> None:
    import zipfile

    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(Path(__file__).parents[2])).build(directory=str(tmp_path))
    with zipfile.ZipFile(built) as wheel:
        assert "oip_conformance/command.py" in wheel.namelist()
        assert not any(name.startswith("tests/") for name in wheel.namelist())


def test_no_message_is_forgotten() -> None:
    assert {"ModelInferRequest", "ModelInferResponse", "InferTensorContents"} <= set(MESSAGES)
