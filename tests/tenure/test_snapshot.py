"""Reading sources and writing snapshots."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.contract import Contract
from tenure.errors import SourceError
from tenure.project import Project
from tenure.snapshot import read_snapshot, read_source, write_snapshot
from tenure.validation import Validated

HEADER = "id,left,x\n"


@pytest.fixture
def contract(make_contract: Callable[..., Contract]) -> Contract:
    return make_contract({"name": "x", "type": "float"})


@pytest.fixture
def read(tmp_path: Path, contract: Contract) -> Callable[..., pd.DataFrame]:
    def run(content: str | bytes, name: str = "source.csv", format: str | None = None) -> pd.DataFrame:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_source(file, format, contract)

    return run


def test_telco_is_read_as_text_with_numbered_rows(project: Project) -> None:
    frame = read_source(Path(project.source.uri), None, project.contract)
    assert frame.shape == (7043, 21)
    assert frame["customer_id"].tolist()[::7042] == ["row-0000001", "row-0007043"]
    assert frame["monthly_charges"].iat[0] == "29.85"
    assert frame["total_charges"].isna().sum() == 11
    assert set(frame.dtypes) == {pd.Series([""]).dtype}


def test_an_id_in_the_file_is_kept(telco: pd.DataFrame, project: Project, tmp_path: Path) -> None:
    """A part of the customers, written with their ids, stays those customers."""
    telco.tail(5).to_csv(tmp_path / "part.csv", index=False)
    frame = read_source(tmp_path / "part.csv", None, project.contract)
    assert frame["customer_id"].tolist() == [f"row-000{number}" for number in range(7039, 7044)]


def test_quotes_blanks_byte_order_mark_and_line_ends(read: Callable[..., pd.DataFrame]) -> None:
    frame = read('\ufeffid,left,x\r\n"a,1",Yes,"1\n2"\r\n\r\n"say ""hi""", ,\r\n\u2028,No,3'.encode())
    assert frame.to_dict("list") == {
        "id": ["a,1", 'say "hi"', None],  # a line separator alone is blank, but ends no line
        "left": ["Yes", None, "No"],
        "x": ["1\n2", None, "3"],
    }


cell = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=8))
def test_what_a_csv_writer_writes_is_read(
    rows: list[tuple[str, str, str]], read: Callable[..., pd.DataFrame]
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "left", "x"), *rows])
    frame = read(buffer.getvalue())
    expected = [tuple(None if not value or value.isspace() else value for value in row) for row in rows]
    assert list(frame.itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (HEADER, "has a header but no rows"),
        (HEADER + "a,Yes,1\nb,No\n", "line 3 has 2 fields where the header has 3: the file is truncated"),
        (HEADER + "a,Yes,1\nb,No,2,3\n", "line 3 has 4 fields"),
        (HEADER + 'a,Yes,1\nb,"No,2\nc,', "a quote is never closed: the file is truncated"),
        (HEADER + 'a,"Y"es,1\n', "line 2: "),
        (HEADER.encode() + b"a,Yes,1\nb\0\0\0", "line 3 holds a NUL byte"),
        (HEADER.encode() + b"M\xfcller,Yes,1\n", "not UTF-8 \\(byte 11 is 0xfc\\)"),
        ((HEADER + "a,Yes,1\n").encode("utf-16"), "not UTF-8"),
        ("a,Yes,1\nb,No,2\n", "the first line \\('a', 'Yes', '1'\\) names no column .*: add a header"),
        ("id;left;x\na;Yes;1\n", "separated by semicolons"),
        ('"id"\t"left"\t"x"\n', "separated by tabs"),
        ("id,left,x,x\na,Yes,1,2\n", "names 'x' more than once"),
    ],
)
def test_broken_files_are_refused(
    read: Callable[..., pd.DataFrame], tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read(content)
    assert str(caught.value).startswith(f"{tmp_path / 'source.csv'}: ")


@pytest.mark.parametrize("kept", [1, 990, 50_000, 600_000])
def test_a_download_that_stopped_is_refused(project: Project, tmp_path: Path, kept: int) -> None:
    content = Path(project.source.uri).read_bytes()
    assert len(content) > kept
    (tmp_path / "telco.csv").write_bytes(content[:kept])
    with pytest.raises(SourceError, match=r"truncated|names no column|no rows"):
        read_source(tmp_path / "telco.csv", None, project.contract)


def test_unknown_formats_and_absent_files_are_refused(
    read: Callable[..., pd.DataFrame], tmp_path: Path, contract: Contract
) -> None:
    with pytest.raises(SourceError, match=r"suffix '.xlsx' is unknown \(.csv, .parquet, .pq\): set source"):
        read("a", name="source.xlsx")
    with pytest.raises(SourceError, match="format 'json' is unknown, allowed are csv and parquet"):
        read("a", format="json")
    assert len(read(HEADER + "a,Yes,1\n", name="source.txt", format="csv")) == 1
    with pytest.raises(SourceError, match="No such file"):
        read_source(tmp_path / "none.csv", None, contract)
    with pytest.raises(SourceError, match="s a directory"):
        read_source(tmp_path, "csv", contract)


def test_parquet_keeps_its_types(tmp_path: Path, contract: Contract) -> None:
    table = pa.table(
        {
            "id": pa.array([2**60 + 1, None], pa.int64()),
            "left": pa.array([True, None]),
            "x": pa.array([1.5, None]),
            "plan": pa.array(["a", None]).dictionary_encode(),
            "at": pa.array([0, None], pa.timestamp("us", tz="Europe/Berlin")),
            "small": pa.array([1, None], pa.uint8()),
        }
    )
    pq.write_table(table, tmp_path / "source.parquet")
    frame = read_source(tmp_path / "source.parquet", None, contract)
    assert frame["id"].iat[0] == 2**60 + 1
    assert [str(frame[name].dtype) for name in ("id", "left", "x", "small")] == [
        "Int64",
        "boolean",
        "float64",
        "Int64",
    ]
    assert frame["plan"].tolist()[0] == "a"
    assert frame["at"].iat[0] == pd.Timestamp(0, tz="UTC")


def test_a_column_that_pandas_kept_as_its_index_is_found(tmp_path: Path, contract: Contract) -> None:
    frame = pd.DataFrame({"left": ["Yes"], "x": [1.0]}, index=pd.Index(["a"], name="id"))
    frame.to_parquet(tmp_path / "source.pq")
    assert read_source(tmp_path / "source.pq", None, contract)["id"].tolist() == ["a"]


def test_broken_parquet_is_refused(telco: pd.DataFrame, tmp_path: Path, contract: Contract) -> None:
    file = tmp_path / "source.parquet"
    write_snapshot(telco, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match="is no Parquet file, or truncated"):
        read_source(file, None, contract)
    file.write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        read_source(file, None, contract)
    file.write_text(HEADER)
    with pytest.raises(SourceError, match="is no Parquet file"):
        read_source(file, None, contract)
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), file)
    with pytest.raises(SourceError, match="names 'x' more than once"):
        read_source(file, None, contract)
    pq.write_table(pa.table({"y": [1]}), file)
    with pytest.raises(SourceError, match="names no column of the contract"):
        read_source(file, None, contract)
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), file)
    with pytest.raises(SourceError, match="no rows"):
        read_source(file, None, contract)


def test_a_snapshot_gives_back_what_was_written(telco: pd.DataFrame, tmp_path: Path) -> None:
    telco["at"] = pd.date_range("2020-01-01", periods=len(telco), tz="UTC").astype("datetime64[ns, UTC]")
    telco["nothing"] = pd.Series([None] * len(telco), dtype=object)
    digest = write_snapshot(telco, tmp_path / "a" / "b.parquet")
    file = tmp_path / "a" / "b.parquet"
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [path.name for path in file.parent.iterdir()] == ["b.parquet"]
    assert file.stat().st_mode & 0o777 == 0o644
    pd.testing.assert_frame_equal(read_snapshot(file), telco)


def test_the_index_makes_no_difference(telco: pd.DataFrame, tmp_path: Path) -> None:
    part = telco.tail(100)
    digests = {
        write_snapshot(frame, tmp_path / "s.parquet")
        for frame in (part, part.reset_index(drop=True), part.set_index(part["customer_id"]))
    }
    assert len(digests) == 1
    assert write_snapshot(part.iloc[::-1], tmp_path / "s.parquet") not in digests


def test_another_process_writes_the_same_bytes(
    telco_validated: Validated, project: Project, project_file: Path, tmp_path: Path
) -> None:
    here = write_snapshot(telco_validated.good, tmp_path / "here.parquet")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tenure.project import load_project\n"
        "from tenure.snapshot import read_source, write_snapshot\n"
        "from tenure.validation import validate_frame\n"
        "project = load_project(sys.argv[1])\n"
        "frame = read_source(Path(project.source.uri), None, project.contract)\n"
        "print(write_snapshot(validate_frame(frame, project.contract).good, Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", code, str(project_file), str(tmp_path / "there.parquet")]
    environment = {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    there = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()
    assert here == there


def test_mixed_types_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="column 'x' mixes types"):
        write_snapshot(pd.DataFrame({"x": ["a", 1]}), tmp_path / "s.parquet")
    assert not list(tmp_path.iterdir())


def test_a_missing_snapshot_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.parquet: cannot be read: .*No such file"):
        read_snapshot(tmp_path / "none.parquet")


def test_nullable_columns_of_a_bad_row_report(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"row": [1], "id": [None], "column": ["x"], "rule": ["type"], "value": ["?"]}
    write_snapshot(pd.DataFrame(bad), tmp_path / "bad.parquet")
    assert read_snapshot(tmp_path / "bad.parquet").to_dict("list") == bad
