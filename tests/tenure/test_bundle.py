"""The bundle: it comes back as it was, and not one byte of it may change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tenure.bundle
from tenure.bundle import (
    FILES,
    METADATA,
    Bundle,
    decode_reference,
    encode_reference,
    load_bundle,
    write_bundle,
)
from tenure.canonical import dump_canonical, load_canonical
from tenure.errors import BundleError
from tenure.manifest import FORMAT, MANIFEST
from tenure.project import Project
from tenure.training import TrainedModel

ALL = (MANIFEST, *FILES)


@pytest.fixture
def directory(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle.directory, tmp_path / "copy"))


@pytest.fixture
def write(model: TrainedModel, quick_project: Project) -> Callable[[Path], str]:
    return lambda directory: write_bundle(
        directory, model, project=quick_project, snapshot="5" * 64, code_version="0123456789abcdef"
    )


def reseal(directory: Path) -> None:
    """Make the manifest fit the files again, as someone who alters a bundle on purpose would."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in directory.iterdir()
        if path.name != MANIFEST
    }
    (directory / MANIFEST).write_bytes(dump_canonical({"format": FORMAT, "files": files}))


def test_comes_back(bundle: Bundle, model: TrainedModel, quick_project: Project) -> None:
    assert bundle.contract == quick_project.contract
    assert bundle.featuriser == model.featuriser
    assert bundle.calibrator == model.calibrator
    assert bundle.threshold == model.threshold
    assert bundle.probe() == model.probe
    assert bundle.probe_scores() == model.probe_scores
    pd.testing.assert_frame_equal(bundle.reference(), model.reference)
    metadata = bundle.metadata
    assert metadata.project == "telco-churn"
    assert metadata.service == "telco-churn"
    assert metadata.snapshot == "5" * 64
    assert metadata.code_version == "0123456789abcdef"
    assert metadata.params == model.search.best.params
    assert metadata.rounds == model.search.best.rounds
    assert (metadata.rows, metadata.positives, metadata.cv) == (model.rows, model.positives, model.cv)


def test_the_digest_is_the_manifests(bundle: Bundle) -> None:
    content = (bundle.directory / MANIFEST).read_bytes()
    assert bundle.digest == hashlib.sha256(content).hexdigest()
    assert bundle.version == bundle.digest[:12]
    named = json.loads(content)["files"]
    for name in FILES:
        data = (bundle.directory / name).read_bytes()
        assert named[name] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert bundle.read(name) == data
    assert {path.name for path in bundle.directory.iterdir()} == set(ALL)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(ALL), mask=st.integers(1, 255), trusting=st.booleans())
def test_every_changed_byte_is_refused(
    directory: Path, bundle: Bundle, data: st.DataObject, name: str, mask: int, trusting: bool
) -> None:
    path = directory / name
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    path.write_bytes(good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :])
    try:
        with pytest.raises(BundleError):
            load_bundle(directory, None if trusting else bundle.digest)
    finally:
        path.write_bytes(good)


def test_every_bit_of_the_manifest_counts(directory: Path, bundle: Bundle) -> None:
    path = directory / MANIFEST
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        with pytest.raises(BundleError):
            load_bundle(directory)
    path.write_bytes(good)
    assert load_bundle(directory).digest == bundle.digest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(ALL), longer=st.booleans())
def test_every_other_length_is_refused(directory: Path, data: st.DataObject, name: str, longer: bool) -> None:
    path = directory / name
    good = path.read_bytes()
    if longer:
        path.write_bytes(good + data.draw(st.binary(min_size=1, max_size=9)))
    else:
        path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    try:
        with pytest.raises(BundleError):
            load_bundle(directory)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(directory)


@pytest.mark.parametrize("name", ALL)
def test_links_and_folders_are_refused(directory: Path, bundle: Bundle, name: str) -> None:
    path = directory / name
    path.unlink()
    path.symlink_to(bundle.directory / name)
    with pytest.raises(BundleError, match=name):
        load_bundle(directory)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match=name):
        load_bundle(directory)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(BundleError, match=name):
        load_bundle(directory)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.pkl", "manifest.json.bak"])
def test_an_added_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).write_text("x")
    with pytest.raises(BundleError, match=f"not of a bundle: {name}"):
        load_bundle(directory)


def test_an_added_folder_is_refused(directory: Path) -> None:
    (directory / "more").mkdir()
    with pytest.raises(BundleError, match="not of a bundle: more"):
        load_bundle(directory)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        load_bundle(tmp_path / "none")


def test_files_cannot_change_places(directory: Path) -> None:
    one, other = directory / "probe.json", directory / "contract.json"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(BundleError):
        load_bundle(directory)


def test_another_bundle_than_asked_for_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="expected 0000"):
        load_bundle(bundle.directory, "0" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(format=1), "has format 1, this version reads 2: train again"),
        (lambda document: document.update(format=True), "wrong keys or values"),
        (lambda document: document.update(note=""), "wrong keys or values"),
        (lambda document: document["files"].pop("model.onnx"), "names the files"),
        (
            lambda document: document["files"].update({"../../x": {"size": 0, "sha256": "0" * 64}}),
            "names the files",
        ),
        (lambda document: document["files"]["model.onnx"].update(size=1.5), "wrong keys or values"),
        (lambda document: document["files"]["model.onnx"].update(sha256="x"), "wrong keys or values"),
    ],
)
def test_a_wrong_manifest_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = directory / MANIFEST
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(dump_canonical(document))
    with pytest.raises(BundleError, match=message):
        load_bundle(directory)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"files": {}}']
)
def test_what_is_no_manifest_is_refused(directory: Path, content: bytes) -> None:
    (directory / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="is no manifest"):
        load_bundle(directory)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (METADATA, {"threshold": 1.5}),
        (METADATA, {"colour": "red"}),
        (METADATA, {"rounds": 0}),
        ("contract.json", {"columns": []}),
        ("featuriser.json", {"format": 9}),
        ("featuriser.json", {"features": []}),
        ("calibrator.json", {"slope": -1.0}),
        ("probe.json", {"scores": []}),
    ],
)
def test_a_resealed_bundle_still_has_to_make_sense(
    directory: Path, name: str, change: dict[str, Any]
) -> None:
    path = directory / name
    path.write_bytes(dump_canonical({**json.loads(path.read_bytes()), **change}))
    reseal(directory)
    with pytest.raises(BundleError):
        load_bundle(directory)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
@pytest.mark.parametrize("content", [b"[]", b"null", b"1", b'{"a":NaN}', b"{}", b"[" * 100_000])
def test_a_resealed_bundle_of_nonsense_is_refused(directory: Path, name: str, content: bytes) -> None:
    (directory / name).write_bytes(content)
    reseal(directory)
    with pytest.raises(BundleError):
        load_bundle(directory)


def test_a_resealed_bundle_is_another_one(directory: Path, bundle: Bundle) -> None:
    path = directory / METADATA
    path.write_bytes(dump_canonical({**json.loads(path.read_bytes()), "code_version": "other"}))
    reseal(directory)
    assert load_bundle(directory).digest != bundle.digest
    with pytest.raises(BundleError, match="expected"):
        load_bundle(directory, bundle.digest)


def test_what_changes_after_loading_changes_nothing(directory: Path, bundle: Bundle) -> None:
    loaded = load_bundle(directory)
    shutil.rmtree(directory)
    assert loaded.probe() == bundle.probe()
    assert loaded.read("model.onnx") == bundle.read("model.onnx")
    pd.testing.assert_frame_equal(loaded.reference(), bundle.reference())


def test_loading_imports_nothing_heavy(bundle: Bundle) -> None:
    program = (
        "import sys; from pathlib import Path; from tenure.bundle import load_bundle\n"
        "loaded = load_bundle(Path(sys.argv[1])); loaded.probe()\n"
        "heavy = {'xgboost', 'pandas', 'onnxruntime', 'onnx', 'sklearn', 'optuna', 'pyarrow', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import tenure.scorer, numpy\n"
        "scorer = tenure.scorer.Scorer(loaded)\n"
        "scorer.score_columns(tenure.scorer.to_columns(loaded.probe(), loaded.featuriser.names))\n"
        "print(sorted((heavy - {'onnxruntime'}) & set(sys.modules)))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(bundle.directory)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert finished.stdout.split("\n")[:2] == ["[]", "[]"]


def test_writing_again_is_fine(write: Callable[[Path], str], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "bundle"
    digest = write(target)
    assert write(target) == digest
    assert load_bundle(target, digest).digest == digest
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_an_empty_directory_is_taken(write: Callable[[Path], str], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    assert load_bundle(target, write(target))


def test_a_directory_with_something_else_is_left_alone(write: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleError):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_bundle_is_not_replaced(
    write: Callable[[Path], str], model: TrainedModel, quick_project: Project, tmp_path: Path
) -> None:
    digest = write(tmp_path / "bundle")
    with pytest.raises(BundleError, match=f"is bundle {digest}"):
        write_bundle(tmp_path / "bundle", model, project=quick_project, snapshot="6" * 64, code_version="x")
    assert load_bundle(tmp_path / "bundle", digest)


def test_a_failed_write_leaves_nothing(
    write: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(directory: Path, data: dict[str, bytes]) -> None:
        (directory / "calibrator.json").write_bytes(b"{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tenure.bundle, "write_files", fill_disk)
    with pytest.raises(BundleError, match="cannot be written: No space left"):
        write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_sees_half_a_bundle(
    write: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    write_files = tenure.bundle.write_files
    seen: list[bool] = []

    def watch(directory: Path, data: dict[str, bytes]) -> None:
        for name, content in data.items():
            write_files(directory, {name: content})
            seen.append(target.exists())

    monkeypatch.setattr(tenure.bundle, "write_files", watch)
    write(target)
    assert seen == [False] * len(ALL)
    assert {path.name for path in target.iterdir()} == set(ALL)


def test_the_service_user_may_read_it(write: Callable[[Path], str], tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write(tmp_path / "bundle")
    finally:
        os.umask(before)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "bundle").iterdir()} == {0o644}


def test_nothing_in_it_is_pickled(bundle: Bundle) -> None:
    for name in FILES:
        data = bundle.read(name)
        assert not data.startswith(b"\x80"), name  # how every pickle since protocol 2 begins
        if name.endswith(".json"):
            load_canonical(data)


def test_references_keep_their_types() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "é"],
            "number": [0.1, float("nan"), 1e300],
            "whole": pd.array([1, None, 2**53 + 1], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
        }
    )
    data = encode_reference(frame)
    assert data == encode_reference(frame.copy())
    pd.testing.assert_frame_equal(decode_reference(data), frame)
