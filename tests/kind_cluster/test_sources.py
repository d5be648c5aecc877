from __future__ import annotations

import hashlib
import socket
import tarfile
from pathlib import Path

import pytest

from installer.errors import SourceError
from installer.options import Options, read_options, read_versions
from installer.sources import SOURCES, Sources, fetch


def make_options(**variables: str) -> Options:
    return read_options(
        variables, {**read_versions(), **{k: v for k, v in variables.items() if "SHA256" in k}}
    )


class Web:
    """Counts downloads and serves one content."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []

    def fetch(self, url: str, path: Path) -> None:
        self.asked.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)


def test_a_file_is_fetched_once_as_pinned(tmp_path: Path) -> None:
    web = Web(b"kind: List")
    for _ in range(2):
        path = Sources(make_options(), tmp_path, web.fetch).read("CERT_MANAGER")
    version = read_versions()["CERT_MANAGER_VERSION"]
    assert web.asked == [SOURCES["CERT_MANAGER"].url.format(version=version)]
    assert path.read_bytes() == b"kind: List"
    assert path.name == f"cert-manager-{version}.yaml"


OBJECT = b"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"


def test_a_file_that_changed_since_it_was_first_seen_is_refused_with_the_line_that_knows(
    tmp_path: Path,
) -> None:
    other = Sources(make_options(), tmp_path, Web(OBJECT).fetch)
    other.load(other.read("CERT_MANAGER"))
    sources = Sources(make_options(), tmp_path, Web(OBJECT).fetch)
    path = sources.read("KSERVE")
    assert sources.load(path)[0]["kind"] == "Namespace"
    path.write_bytes(b"second")
    with pytest.raises(SourceError, match=r"as noted in .*SHA256SUMS, line 2"):
        Sources(make_options(), tmp_path, Web(b"").fetch).read("KSERVE")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>Log in to the network</body></html>",
        b"<html>\n<a href='x: y'>: {",
        b'{"message": "Not Found"}',
        b"kind: Namespace\n",
        b"",
        b"\xff\xfe\x00",
    ],
)
def test_something_else_in_a_files_place_is_told_and_is_not_known_afterwards(
    tmp_path: Path, content: bytes
) -> None:
    sources = Sources(make_options(), tmp_path, Web(content).fetch)
    path = sources.read("KSERVE")
    with pytest.raises(SourceError, match=r"(?s)kserve-v.*\.yaml .*the same command fetches it anew"):
        sources.load(path)
    assert not path.exists()
    healed = Sources(make_options(), tmp_path, Web(OBJECT).fetch)
    assert healed.load(healed.read("KSERVE"))


@pytest.mark.parametrize("content", [b"<html>Log in</html>", b"", "cut"])
def test_a_broken_archive_is_told_and_not_known_afterwards(tmp_path: Path, content: bytes | str) -> None:
    good = make_archive(tmp_path / "p.tar.gz", ["manifests/kustomize/a.yaml"]).read_bytes()
    sent = good[: len(good) // 2] if isinstance(content, str) else content
    sources = Sources(make_options(), tmp_path / "d", Web(sent).fetch)
    path = sources.read("KFP")
    with pytest.raises(SourceError, match=r"(?s)pipelines-.*\.tar\.gz .*fetches it anew"):
        sources.unpack(path, "manifests/kustomize")
    healed = Sources(make_options(), tmp_path / "d", Web(good).fetch)
    assert healed.unpack(healed.read("KFP"), "manifests/kustomize").is_dir()


def test_a_file_that_a_site_brought_is_not_removed(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    file = given / f"kserve-{read_versions()['KSERVE_VERSION']}.yaml"
    file.write_text("<html>")
    sources = Sources(make_options(MANIFESTS=str(given)), tmp_path / "d")
    with pytest.raises(SourceError, match="does not hold Kubernetes objects"):
        sources.load(sources.read("KSERVE"))
    assert file.exists()


def test_a_file_that_is_not_as_pinned_is_refused(tmp_path: Path) -> None:
    right = hashlib.sha256(b"right").hexdigest()
    options = make_options(KSERVE_SHA256=right)
    with pytest.raises(SourceError, match=r"as pinned in versions\.env"):
        Sources(options, tmp_path / "a", Web(b"wrong").fetch).read("KSERVE")
    assert Sources(options, tmp_path / "b", Web(b"right").fetch).read("KSERVE").is_file()


def test_a_site_without_the_internet_brings_the_files(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    options = make_options(MANIFESTS=str(given))
    web = Web(b"")
    with pytest.raises(SourceError, match=r"has no kserve-v.*\.yaml \(https://github.com/kserve"):
        Sources(options, tmp_path / "downloads", web.fetch).read("KSERVE")
    file = given / f"kserve-{read_versions()['KSERVE_VERSION']}.yaml"
    file.write_text("a: b")
    assert Sources(options, tmp_path / "downloads", web.fetch).read("KSERVE") == file
    assert web.asked == []


def make_archive(path: Path, names: list[str]) -> Path:
    tree = path.parent / "tree"
    for name in names:
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(tree / name, f"pipelines-2.17.0/{name}")
    return path


def test_only_the_manifests_of_an_archive_are_unpacked(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "p.tar.gz", ["manifests/kustomize/a.yaml", "backend/src/main.go"])
    files = Sources(make_options(), tmp_path / "d", Web(b"").fetch)
    found = files.unpack(archive, "manifests/kustomize")
    assert (found / "a.yaml").read_text() == "manifests/kustomize/a.yaml"
    assert not list((tmp_path / "d").rglob("main.go"))
    assert files.unpack(archive, "manifests/kustomize") == found


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "p.tar.gz", ["README.md"])
    with pytest.raises(SourceError, match="holds no directory manifests/kustomize"):
        Sources(make_options(), tmp_path / "d", Web(b"").fetch).unpack(archive, "manifests/kustomize")


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/x.yaml"
        with pytest.raises(SourceError, match="MANIFESTS=DIRECTORY"):
            fetch(url, tmp_path / "x.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(SourceError, match="MANIFESTS=DIRECTORY"):
        fetch("http://127.0.0.1:9/x.yaml", tmp_path / "file" / "x.yaml")
