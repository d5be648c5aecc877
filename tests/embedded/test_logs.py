import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.errors import EmbeddedError
from embedded.home import Home
from embedded.logs import find_log, follow, read_tail


@given(
    lines=st.lists(st.text("ab é", max_size=30), max_size=60),
    wanted=st.integers(0, 70),
    block=st.integers(1, 50),
)
def test_the_tail_is_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], wanted: int, block: int
) -> None:
    file = tmp_path_factory.getbasetemp() / f"tail-{threading.get_ident()}.log"
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedded.logs._BLOCK", block)
        assert read_tail(file, wanted) == (lines[-wanted:] if wanted else [])


def test_the_tail_of_no_file_is_empty(tmp_path: Path) -> None:
    assert read_tail(tmp_path / "none", 5) == []


def test_an_unfinished_last_line_counts(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\ntwo\nthr\xff")
    assert read_tail(file, 2) == ["two", "thr�"]


def test_an_unknown_name_lists_the_known_ones(home: Home) -> None:
    home.log_file("store").write_text("")
    with pytest.raises(EmbeddedError, match=r"no log called 'stroe'.* there are: store"):
        find_log(home, "stroe")
    with pytest.raises(EmbeddedError):
        find_log(home, "../secrets")
    assert find_log(home, "store") == home.log_file("store")


def test_following_goes_on_over_a_rotation(tmp_path: Path, wait: Callable[..., None]) -> None:
    file = tmp_path / "log"
    file.write_text("old\n")
    seen: list[str] = []
    ready = threading.Event()

    def read() -> None:
        stream = follow(file, poll_seconds=0.01)
        ready.set()
        for text in stream:
            seen.append(text)
            if "end" in text:
                stream.close()
                return

    thread = threading.Thread(target=read)
    thread.start()
    ready.wait()

    def append(text: str) -> None:
        with file.open("a") as stream:
            stream.write(text)

    # The reader is at the end of the old file once it has shown a first addition.
    wait(lambda: append("x") or seen)
    append("first\n")
    wait(lambda: "first" in "".join(seen))
    file.rename(tmp_path / "log.1")
    file.write_text("second\n")
    wait(lambda: "second" in "".join(seen))
    append("end\n")
    thread.join(10)
    assert not thread.is_alive()
    assert "old" not in "".join(seen)
