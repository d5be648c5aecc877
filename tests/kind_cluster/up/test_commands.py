"""The other commands, and the codes that they end with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from installer import __main__ as main
from installer.site import Site

MakeSite = Callable[..., Site]
Install = Callable[..., str]
Document = dict[str, Any]


def test_down_keeps_what_is_stored_and_purge_does_not(
    install: Install, programs: Any, make_site: MakeSite
) -> None:
    variables = {"CLUSTER": "existing", "IMAGE_LOAD": "ctl load", "WITH_KFP": "no"}
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    programs.cluster.put({"kind": "StorageClass", "metadata": {"name": "s", "annotations": default}})
    programs.environment["S3_ACCESS_KEY"], programs.environment["S3_SECRET_KEY"] = "a", "b"
    install(**variables)
    main.down(make_site(**variables))
    there = programs.cluster.objects
    assert ("Deployment", "tenure", "tenure-pilot") not in there
    assert ("Secret", "tenure", "tenure-databases") in there
    assert ("Namespace", "", "tenure") in there
    main.down(make_site(PURGE="yes", **variables))
    assert ("Namespace", "", "tenure") not in programs.cluster.objects


def run_main(monkeypatch: pytest.MonkeyPatch, site: Site, command: str) -> int:
    """Run the command line with this site in place of one of this machine."""
    monkeypatch.setattr(main, "_make_site", lambda *_: site)
    return main.main([command])


def read(site: Site) -> str:
    return site.progress._out.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_status_tells_what_runs(
    install: Install, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    site = make_site()
    assert run_main(monkeypatch, site, "status") == 0
    printed = read(site)
    assert "√ tenure-pilot" in printed
    assert "√ KServe answers" in printed
    assert "×" not in printed


def test_status_tells_what_does_not_run(
    install: Install, programs: Any, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    install()
    programs.cluster.objects["Deployment", "tenure", "tenure-pilot"]["status"]["availableReplicas"] = 0
    programs.cluster.refuse_create = lambda one: "no endpoints" if one["kind"] == "Pod" else None
    waiting = {"name": "pilot", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "gone"}}}
    programs.cluster.put(
        {
            "kind": "Pod",
            "metadata": {"name": "tenure-pilot-1", "namespace": "tenure"},
            "status": {"containerStatuses": [waiting]},
        }
    )
    site = make_site()
    assert run_main(monkeypatch, site, "status") == 1
    printed = read(site)
    assert "× tenure-pilot (0 of 1 available)" in printed
    assert "× KServe: " in printed
    assert "tenure-pilot-1/pilot: ImagePullBackOff: gone" in printed
    assert "make status: 1 of " in capsys.readouterr().err


def test_status_of_a_cluster_without_tenure(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run_main(monkeypatch, make_site(), "status") == 1
    assert "nothing of Tenure is in namespace tenure: make up" in capsys.readouterr().err


def test_check_changes_nothing(
    make_site: MakeSite, programs: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = make_site()
    assert run_main(monkeypatch, site, "check") == 0
    assert "√ Docker 29.0" in read(site)
    programs.broken.add("docker")
    assert run_main(monkeypatch, make_site(), "check") == 3
    assert "each has its fix above" in capsys.readouterr().err
    assert programs.cluster.applied == []
    assert programs.count("kind", "create") == 0


def test_down_deletes_the_kind_cluster(
    make_site: MakeSite, programs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, make_site(), "down") == 0
    assert ("kind", "delete", "cluster", "--name", "tenure") in programs.calls


def test_wrong_use_and_an_end_by_hand_have_their_codes(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main.main([]) == 2
    assert "usage: " in capsys.readouterr().err
    monkeypatch.setenv("CLUSTER", "minikube")
    assert main.main(["check"]) == 2
    assert "make check: CLUSTER=minikube" in capsys.readouterr().err
    monkeypatch.delenv("CLUSTER")

    def end(_: Site) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(main._COMMANDS, "up", end)
    assert run_main(monkeypatch, make_site(), "up") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
