"""The featuriser: what each value becomes, and that no path to the matrix differs from another."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OrdinalEncoder

from tenure import featuriser as module
from tenure.contract import Contract
from tenure.errors import BundleError, ContractError, RowError
from tenure.featuriser import Feature, Featuriser, encode_labels
from tenure.project import Project

CATEGORIES = ["b", "a", "Ünïcode", "c d"]
CONTRACT = Contract.model_validate(
    {
        "columns": [
            {"name": "id", "role": "id", "type": "string"},
            {"name": "left", "role": "label", "type": "boolean", "nullable": True},
            {"name": "plan", "type": "string", "categories": CATEGORIES, "nullable": True},
            {"name": "city", "type": "string", "nullable": True},
            {"name": "kept", "type": "boolean", "nullable": True},
            {"name": "months", "type": "integer", "nullable": True, "minimum": 0},
            {"name": "paid", "type": "float", "nullable": True, "maximum": 1e6},
        ]
    }
)
TRAIN = pd.DataFrame(
    {
        "id": ["1", "2", "3"],
        "plan": ["a", "b", None],
        "city": ["Ulm", "Aachen", None],
        "kept": pd.array([True, False, None], dtype="boolean"),
        "months": pd.array([1, 70, None], dtype="Int64"),
        "paid": [1.5, -20.0, math.nan],
    }
)
FEATURISER = Featuriser.fit(TRAIN, CONTRACT)

floats = st.floats(max_value=1e6, min_value=-3e38, allow_nan=False) | st.just(math.nan) | st.none()
row = st.fixed_dictionaries(
    {
        "plan": st.sampled_from([*CATEGORIES, "unseen", "", None]) | st.text(max_size=3),
        "city": st.sampled_from(["Ulm", "Aachen", "Bonn", None]),
        "kept": st.sampled_from([True, False, None]),
        "months": st.integers(0, 2**40) | st.none(),
        "paid": floats | st.integers(-(10**6), 10**6),
    }
)
# Values of every kind, good and bad, for the tests of "the same answer or the same refusal".
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), floats, st.floats(), st.text(max_size=3), st.binary(max_size=2),
    st.sampled_from([*CATEGORIES, "Ulm", np.bool_(True), np.int64(3), np.float32(2.5), np.float64("nan")]),
    st.just(10**400),
    st.lists(st.integers(), max_size=1),
)  # fmt: skip


def to_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in FEATURISER.names}


def attempt(columns: Any) -> np.ndarray[Any, Any] | str:
    """Transform, or say which column was refused."""
    try:
        return FEATURISER.transform(columns)
    except RowError as error:
        return error.column


def test_each_type_has_its_meaning() -> None:
    matrix = FEATURISER.transform(
        {
            "plan": ["b", "Ünïcode", "unseen", None],
            "city": ["Aachen", "Ulm", "Bonn", None],
            "kept": [True, False, None, True],
            "months": [0, 5.0, None, math.nan],
            "paid": [0.1, 7, None, -1e30],
        }
    )
    nan = math.nan
    expected = np.array(
        [[0, 0, 1, 0, 0.1], [2, 1, 0, 5, 7], [nan, nan, nan, nan, nan], [nan, nan, 1, nan, -1e30]],
        dtype=np.float32,
    )
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert FEATURISER.names == ("plan", "city", "kept", "months", "paid")
    assert FEATURISER.types == ("c", "c", "q", "q", "q")


@settings(deadline=None)  # the machine may be busy
@given(st.lists(row, min_size=1, max_size=60))
def test_equals_scikit_learn_row_by_row(rows: list[dict[str, Any]]) -> None:
    columns = to_columns(rows)
    encoder = OrdinalEncoder(
        categories=[CATEGORIES, ["Aachen", "Ulm"]],
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
    ).fit(np.array([["a", "Ulm"], ["b", "Aachen"]], dtype=object))
    codes = encoder.transform(np.array([columns["plan"], columns["city"]], dtype=object).T)
    numbers = np.array(
        [[math.nan if columns[name][i] is None else float(columns[name][i]) for i in range(len(rows))]
         for name in ("kept", "months", "paid")]
    )  # fmt: skip
    expected = np.column_stack([codes, numbers.T]).astype(np.float32)
    np.testing.assert_array_equal(FEATURISER.transform(columns), expected)
    for position, single in enumerate(rows):
        one = FEATURISER.transform({name: [value] for name, value in single.items()})
        np.testing.assert_array_equal(one, expected[position : position + 1])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_batch_never_differs_from_its_rows(data: st.DataObject) -> None:
    """One column of anything, among good ones: the batch is refused exactly if one of its rows is."""
    name = data.draw(st.sampled_from(FEATURISER.names))
    size = data.draw(st.sampled_from([1, 2, 5, module._SCALAR_ROWS, module._SCALAR_ROWS + 1, 40]))
    drawn = data.draw(st.lists(anything, min_size=size, max_size=size))
    good: dict[str, Any] = {"plan": "a", "city": None, "kept": True, "months": 3, "paid": 2.5}
    columns = {key: [value] * size for key, value in good.items()} | {name: drawn}
    singles = [attempt({key: [values[i]] for key, values in columns.items()}) for i in range(size)]
    batch = attempt(columns)
    if any(isinstance(single, str) for single in singles):
        assert isinstance(batch, str)
        assert batch == name
    else:
        np.testing.assert_array_equal(batch, np.concatenate(singles))


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_an_array_means_what_its_values_mean(data: st.DataObject) -> None:
    dtype = data.draw(
        st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u8", "u2", "?", "O", "U3", "S2", "c8", "longdouble"])
    )
    name = data.draw(st.sampled_from(FEATURISER.names))
    size = data.draw(st.sampled_from([1, 3, 30]))
    values = data.draw(st.lists(st.sampled_from([0, 1, 2, 7]), min_size=size, max_size=size))
    array = np.array(values).astype(dtype)
    good: dict[str, Any] = {"plan": "a", "city": None, "kept": True, "months": 3, "paid": 2.5}
    columns = {key: [value] * size for key, value in good.items()}
    from_array, from_list = attempt(columns | {name: array}), attempt(columns | {name: array.tolist()})
    assert type(from_array) is type(from_list)
    np.testing.assert_array_equal(from_array, from_list)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_frames_and_columns_give_one_matrix(telco: pd.DataFrame, project: Project, size: int) -> None:
    featuriser = Featuriser.fit(telco, project.contract)
    frame = telco.tail(size)
    columns = {name: [None if pd.isna(v) else v for v in frame[name].tolist()] for name in featuriser.names}
    np.testing.assert_array_equal(featuriser.transform_frame(frame), featuriser.transform(columns))
    arrays = {name: np.array(values) for name, values in columns.items()}
    arrays["total_charges"] = arrays["total_charges"].astype(float)
    np.testing.assert_array_equal(featuriser.transform(arrays), featuriser.transform(columns))


def test_the_whole_of_telco(telco: pd.DataFrame, project: Project) -> None:
    featuriser = Featuriser.fit(telco, project.contract)
    matrix = featuriser.transform_frame(telco)
    assert matrix.shape == (7043, 19)
    assert np.isnan(matrix).sum() == 11
    names = featuriser.names
    assert matrix[0, names.index("monthly_charges")] == np.float32(29.85)
    assert matrix[0, names.index("multiple_lines")] == 2  # "No phone service"
    assert set(np.unique(matrix[:, names.index("contract")])) == {0, 1, 2}


def test_no_rows_give_an_empty_matrix(telco: pd.DataFrame, project: Project) -> None:
    featuriser = Featuriser.fit(telco, project.contract)
    assert featuriser.transform_frame(telco.head(0)).shape == (0, 19)
    assert featuriser.transform({name: [] for name in featuriser.names}).shape == (0, 19)


def test_frames_with_ordinary_pandas_types_work_too() -> None:
    frame = pd.DataFrame(
        {
            "plan": pd.Categorical(["a", None, "b"]),
            "city": pd.array(["Ulm", None, "Bonn"], dtype="string"),
            "kept": [True, False, True],
            "months": [1, 2, 3],
            "paid": np.array([1, 2, 3], dtype=np.float32),
        },
        index=[9, 9, 9],
    )
    nan = math.nan
    expected = np.array([[1, 1, 1, 1, 1], [nan, nan, 0, 2, 2], [0, nan, 1, 3, 3]], dtype=np.float32)
    np.testing.assert_array_equal(FEATURISER.transform_frame(frame), expected)


GOOD: dict[str, Any] = {"plan": "a", "city": "Ulm", "kept": True, "months": 3, "paid": 2.5}


@pytest.mark.parametrize("repeat", [1, 2, 100])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("plan", 3, "3 is of type int, expected a string"),
        ("plan", b"a", "of type bytes, expected a string"),
        ("plan", ["a"], "of type list, expected a string"),
        ("kept", 1, "1 is of type int, expected true or false"),
        ("kept", "true", "expected true or false"),
        ("months", True, "True is of type bool, expected a whole number"),
        ("months", "5", "'5' is of type str, expected a whole number"),
        ("months", 5.5, "5.5 is not a whole number"),
        ("months", -1, "-1 is below the minimum 0"),
        ("months", 10**400, "is too large"),
        ("months", 1e39, "1e\\+39 is too large"),
        ("paid", 1e6 + 1, "1e\\+06 is above the maximum 1e\\+06"),
        ("paid", math.inf, "inf is not a finite number"),
        ("paid", -math.inf, "-inf is not a finite number"),
        ("paid", -3.5e38, "is too large"),
        ("paid", 1j, "expected a number"),
        ("paid", {}, "of type dict, expected a number"),
        ("paid", "x" * 100, "\\.\\.\\. is of type str"),
    ],
)
def test_wrong_values_are_refused(name: str, value: Any, message: str, repeat: int) -> None:
    columns = {key: [good] * repeat for key, good in GOOD.items()}
    columns[name] = [GOOD[name]] * (repeat - 1) + [value]
    with pytest.raises(RowError, match=f"^{name}: row {repeat - 1}: .*{message}") as caught:
        FEATURISER.transform(columns)
    assert caught.value.column == name


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan"), np.float32("nan")])
@pytest.mark.parametrize("type_", ["string", "boolean", "integer", "float"])
@pytest.mark.parametrize("rows", [1, 50])
def test_missing_is_the_contracts_say(
    make_contract: Callable[..., Contract], missing: Any, type_: str, rows: int
) -> None:
    strict = make_contract({"name": "x", "type": type_})
    lenient = make_contract({"name": "x", "type": type_, "nullable": True})
    values = {"x": [missing] * rows}
    with pytest.raises(RowError, match="x: row 0: is missing, but the contract says it never is"):
        Featuriser((Feature(strict["x"]),)).transform(values)
    matrix = Featuriser((Feature(lenient["x"]),)).transform(values)
    assert np.isnan(matrix).all()
    assert matrix.shape == (rows, 1)


@pytest.mark.parametrize("rows", [1, 50])
def test_rejecting_what_training_never_saw(make_contract: Callable[..., Contract], rows: int) -> None:
    contract = make_contract(
        {"name": "plan", "type": "string", "unseen": "reject"},
        {"name": "paid", "type": "float", "unseen": "reject", "minimum": 0},
        {"name": "gone", "type": "integer", "unseen": "reject", "nullable": True},
    )
    frame = pd.DataFrame(
        {"plan": ["x", "y"], "paid": [2.0, 8.0], "gone": pd.array([None, None], dtype="Int64")}
    )
    featuriser = Featuriser.fit(frame, contract)
    good: dict[str, Any] = {"plan": "y", "paid": 2.0, "gone": None}

    def transform(**changed: Any) -> Any:
        return featuriser.transform({key: [value] * rows for key, value in (good | changed).items()})

    np.testing.assert_array_equal(transform()[0], [1, 2, math.nan])
    with pytest.raises(RowError, match="plan: row 0: 'z' is not one of 'x', 'y'"):
        transform(plan="z")
    with pytest.raises(RowError, match=r"paid: row 0: 8\.5 is beyond the training range 2 to 8"):
        transform(paid=8.5)
    with pytest.raises(RowError, match="paid: row 0: 1 is beyond the training range"):
        transform(paid=1)
    with pytest.raises(RowError, match="paid: row 0: -1 is below the minimum 0"):
        transform(paid=-1)
    with pytest.raises(RowError, match="gone: row 0: 1 was never seen in training"):
        transform(gone=1)


def test_wrong_columns_are_refused() -> None:
    columns: dict[str, Any] = {key: [value] * 2 for key, value in GOOD.items()}
    assert FEATURISER.transform(columns | {"id": ["1", "2"], "more": object()}).shape == (2, 5)
    assert FEATURISER.transform({key: tuple(values) for key, values in columns.items()}).shape == (2, 5)
    for changed, message in (
        ({"months": [1]}, "months: has 1 rows, but plan has 2"),
        ({"plan": "ab"}, "plan: is str, expected a list"),
        ({"plan": {"a": 1, "b": 2}}, "plan: is dict, expected a list"),
        ({"paid": 3.0}, "paid: is float, expected a list"),
        ({"paid": np.zeros((2, 1))}, "paid: is an array of shape \\[2, 1\\]"),
        ({"paid": np.array(1.0)}, "paid: is an array of shape \\[\\]"),
        ({"months": np.array([1, 2], dtype="datetime64[ns]")}, "months: holds datetime64"),
    ):
        with pytest.raises(RowError, match=message):
            FEATURISER.transform(columns | changed)
    del columns["paid"]
    with pytest.raises(RowError, match="paid: the column is missing"):
        FEATURISER.transform(columns)
    with pytest.raises(RowError, match="paid: the column is missing"):
        FEATURISER.transform_frame(TRAIN.drop(columns="paid"))


def test_long_lists_of_categories_are_cut_in_messages(make_contract: Callable[..., Contract]) -> None:
    contract = make_contract({"name": "plan", "type": "string", "unseen": "reject"})
    featuriser = Featuriser.fit(pd.DataFrame({"plan": [f"p{n:03d}" for n in range(40)]}), contract)
    with pytest.raises(RowError, match="'p009' and 30 more"):
        featuriser.transform({"plan": ["q"]})


def test_fitting_learns_categories_and_ranges() -> None:
    plan, city, kept, months, paid = FEATURISER.features
    assert plan.categories == tuple(CATEGORIES)  # the contract's, in its order
    assert city.categories == ("Aachen", "Ulm")  # observed, sorted
    assert (kept.low, kept.high) == (None, None)
    assert (months.low, months.high) == (1.0, 70.0)
    assert (paid.low, paid.high) == (-20.0, 1.5)


def test_fitting_refuses_missing_columns_and_free_text(make_contract: Callable[..., Contract]) -> None:
    contract = make_contract({"name": "note", "type": "string"})
    with pytest.raises(ContractError, match="'note' is missing"):
        Featuriser.fit(pd.DataFrame({"id": ["1"]}), contract)
    with pytest.raises(ContractError, match="'note' has 1001 distinct values"):
        Featuriser.fit(pd.DataFrame({"note": [str(number) for number in range(1001)]}), contract)


def test_a_document_survives_json(telco: pd.DataFrame, project: Project) -> None:
    for featuriser, contract in (
        (FEATURISER, CONTRACT),
        (Featuriser.fit(telco, project.contract), project.contract),
    ):
        document = json.loads(json.dumps(featuriser.to_document(), allow_nan=False))
        assert Featuriser.from_document(document, contract) == featuriser


@settings(deadline=None)  # the machine may be busy
@given(st.floats(-3e38, 3e38), st.floats(-3e38, 3e38))
def test_ranges_survive_json_exactly(low: float, high: float) -> None:
    features = tuple(
        Feature(feature.column, feature.categories, low, high) if feature.column.name == "paid" else feature
        for feature in FEATURISER.features
    )
    document = json.loads(json.dumps(Featuriser(features).to_document()))
    assert Featuriser.from_document(document, CONTRACT).features == features


def test_foreign_documents_are_refused() -> None:
    document = FEATURISER.to_document()
    with pytest.raises(BundleError, match="format 2, but this version reads 1"):
        Featuriser.from_document(document | {"format": 2}, CONTRACT)
    with pytest.raises(BundleError, match="its contract has"):
        Featuriser.from_document(document | {"features": document["features"][1:]}, CONTRACT)
    with pytest.raises(BundleError, match="malformed"):
        Featuriser.from_document(document | {"features": [{"name": "plan"}]}, CONTRACT)
    with pytest.raises(BundleError, match="malformed"):
        Featuriser.from_document({"format": 1}, CONTRACT)


def test_labels(telco: pd.DataFrame, project: Project, make_contract: Callable[..., Contract]) -> None:
    labels = encode_labels(telco, project.contract)
    assert labels.dtype == np.float64
    assert labels.sum() == 1869
    frame = pd.DataFrame({"left": ["Yes", "No", None, "yes"]}, index=[5, 5, 5, 5])
    np.testing.assert_array_equal(encode_labels(frame, make_contract()), [1, 0, math.nan, 0])
    frame = pd.DataFrame({"left": pd.array([True, False, None], dtype="boolean")})
    np.testing.assert_array_equal(encode_labels(frame, CONTRACT), [1, 0, math.nan])
    with pytest.raises(ContractError, match="'left' is missing"):
        encode_labels(pd.DataFrame({"x": [1]}), CONTRACT)


def test_transforming_imports_no_pandas() -> None:
    """Serving must start without it: pandas costs half a second and 60 MB."""
    code = (
        "import sys, json\n"
        "from tenure.contract import Contract\n"
        "from tenure.featuriser import Featuriser\n"
        "contract = Contract.model_validate_json(sys.argv[1])\n"
        "featuriser = Featuriser.from_document(json.loads(sys.argv[2]), contract)\n"
        "featuriser.transform({n: [None] for n in featuriser.names})\n"
        "heavy = {'pandas', 'sklearn', 'scipy', 'pyarrow', 'xgboost'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    arguments = [CONTRACT.model_dump_json(), json.dumps(FEATURISER.to_document())]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
