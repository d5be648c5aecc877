from __future__ import annotations

from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.errors import RefusedError, UnreachableError
from serving.pilot.gateway import Gateway
from serving.pilot.page import Backend, Statistics
from serving.pilot.tally import CANARY, STABLE, add_up, count, to_traffic
from tenure.judgement import Progress, Traffic

PAGE = """\
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="default/churn-b1-predictor+churn-predictor/http"} 90
envoy_cluster_upstream_rq_xx{envoy_response_code_class="4",envoy_cluster_name="default/churn-b1-predictor+churn-predictor/http"} 7
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="default/churn-b1-predictor/http"} 3
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default/churn-predictor/http",le="1"} 700
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default/churn-predictor/http",le="2"} 790
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default/churn-predictor/http",le="3"} 990
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default/churn-predictor/http",le="+Inf"} 1000
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="default/churn-predictor/http"} 52.5
envoy_cluster_upstream_rq_completed{envoy_cluster_name="default/churn-b1-predictor+churn-predictor/http"} 249
envoy_cluster_upstream_rq_completed{envoy_cluster_name="default/churn-b1-predictor/http"} 3
envoy_cluster_upstream_rq_total{envoy_cluster_name="default/churn-b1-predictor/http"} 44
envoy_cluster_upstream_rq_total{envoy_cluster_name="default/churn-b1-predictor+churn-predictor/http"} 9999
envoy_cluster_upstream_rq_pending_failure_eject{envoy_cluster_name="default/churn-b1-predictor/http"} 5
envoy_cluster_endpoint_rq_error{envoy_cluster_name="default/churn-b1-predictor/http",envoy_endpoint_address="127.0.0.1:1"} 7
envoy_cluster_upstream_rq_completed{envoy_cluster_name="default/churn-predictor/http"} 1000
envoy_cluster_upstream_rq_total{envoy_cluster_name="default/churn-predictor/http"} 1208
envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="default/churn-predictor/http"} 6
envoy_cluster_upstream_rq_completed{envoy_cluster_name="other"} 5
envoy_server_uptime{} 5
"""  # noqa: E501


def read_traffic(arm: str, service: str) -> Traffic:
    backend = Statistics.parse(PAGE).find("default", service)
    return to_traffic(arm, add_up({}, backend.count_raw(None))[1])


def test_failures_that_the_fallback_hid_are_the_canarys():
    # 252 were meant for it and 44 reached it; of 7 failures 5 were refused connections, among the other 208.
    canary = read_traffic(CANARY, "churn-b1-predictor")
    assert (canary.requests, canary.errors) == (252, 208 + 2 + 7)
    # What it answered in the canary's place is none of the stable version's requests.
    stable = read_traffic(STABLE, "churn-predictor")
    assert (stable.requests, stable.errors) == (1000, 6)


def test_unknown_services_have_counted_nothing():
    assert Statistics.parse(PAGE).find("default", "unknown") == Backend()
    assert to_traffic(CANARY, {}) == Traffic(requests=0, errors=0, timed=0, slow=0)


def test_slow_is_what_the_slowest_fifth_takes():
    stable = Statistics.parse(PAGE).find("default", "churn-predictor")
    assert stable.find_slow_ms() == 2.0
    _, sums = add_up({}, stable.count_raw(2.0))
    assert (sums["timed"], sums["slow"]) == (1000, 210)
    assert Backend(times={"a": {1.0: 5, float("inf"): 5}}).find_slow_ms() is None


def test_nothing_before_the_beginning_counts():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    progress = Progress(canary="b" * 12, digest="b" * 64, step=0, began=now, since=now)
    statistics = Statistics.parse(PAGE)
    arms = [statistics.find("default", name) for name in ("churn-b1-predictor", "churn-predictor")]
    progress = count(progress, *arms)
    assert progress.slow_ms == 2.0
    assert progress.counters["canary"] == {}
    for counts in (arms[0].meant, arms[0].tried):
        counts["default/churn-b1-predictor/http"] += 10
        counts["default/churn-b1-predictor/grpc"] = 4  # a cluster that nobody had asked before
    arms[0].failures["default/churn-b1-predictor/http@127.0.0.1:1"] += 1
    arms[0].failures["default/churn-b1-predictor/http@127.0.0.1:9"] = 1  # a process that was started since
    progress = count(Progress.model_validate_json(progress.model_dump_json()), *arms)
    traffic = to_traffic(CANARY, progress.counters["canary"])
    assert (traffic.requests, traffic.errors) == (14, 2)


def test_durations_count_from_when_it_is_known_what_is_slow():
    before = {"cluster": {"errors": 0}}
    _, sums = add_up(before, {"cluster": {"errors": 1, "timed": 500, "slow": 100}})
    assert sums == {"errors": 1, "timed": 0, "slow": 0}


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30))
def test_sums_grow_by_what_was_counted_however_often_it_starts_anew(turns):
    value, total, before, summed = 0, 0, {"process": {"requests": 0}}, 0
    for increase, restarted in turns:
        value = increase if restarted and increase < value else value + increase
        total += increase
        before, sums = add_up(before, {"process": {"requests": value}})
        summed += sums["requests"]
    assert summed == total


@given(st.text(max_size=300))
def test_no_page_breaks_the_parser(text):
    Statistics.parse(f"envoy_cluster_{text}")


@pytest.fixture
def page():
    status = {"code": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status["code"])
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/stats/prometheus", status
        server.shutdown()
        thread.join()


def test_page_is_read_over_http(page):
    url, status = page
    gateway = Gateway(url)
    assert ("default", "churn-predictor") in gateway.read().backends
    status["code"] = 403
    with pytest.raises(RefusedError, match="403"):
        gateway.read()
    with pytest.raises(UnreachableError, match="TENURE_GATEWAY_STATS_URL"):
        Gateway("http://127.0.0.1:1/stats").read()


ROUTED = "httproute/default/churn-customers/rule"


def make_routed_page(**counts: int) -> str:
    """What Envoy Gateway's Envoy says: `canary` and `stable` requests, of which some failed or came again."""
    lines = [f"envoy_server_uptime{{}} {counts.get('uptime', 100)}"]
    for place, arm in enumerate(("stable", "canary")):
        cluster = f'envoy_cluster_name="{ROUTED}/0/backend/{place}"'
        number, errors = counts.get(arm, 0), counts.get(f"{arm}_errors", 0)
        lines += [
            f"envoy_cluster_upstream_rq_completed{{{cluster}}} {number}",
            f"envoy_cluster_external_upstream_rq_completed{{{cluster}}} {number}",
            f"envoy_cluster_upstream_rq_total{{{cluster}}} {number + 3}",
            f"envoy_cluster_upstream_rq_retry_success{{{cluster}}} {counts.get(f'{arm}_again', 0)}",
            f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="2",{cluster}}} {number - errors}',
            f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="5",{cluster}}} {errors}',
        ]
    return "\n".join(lines)


CLUSTERS = {
    f"{ROUTED}/0/backend/0": "churn-predictor",
    f"{ROUTED}/0/backend/1": "churn-b1-predictor",
    f"{ROUTED}/1/backend/0": "churn-predictor",
}


def fly(progress: Progress, *pages: Statistics) -> Progress:
    for page in pages:
        canary = page.find("default", "churn-b1-predictor", CLUSTERS)
        progress = count(progress, canary, page.find("default", "churn-predictor", CLUSTERS))
    return progress


def make_progress(began: float) -> Progress:
    at = datetime.fromtimestamp(began, UTC)
    return Progress(canary="b1", digest="b" * 64, step=0, began=at, since=at, counters={})


def read_arms(progress: Progress) -> dict[str, tuple[int, int]]:
    arms = {arm: to_traffic(arm, progress.counters[arm]) for arm in (CANARY, STABLE)}
    return {arm: (traffic.requests, traffic.errors) for arm, traffic in arms.items()}


def test_clusters_called_by_their_place_are_whose_the_route_says():
    page = Statistics.parse(
        make_routed_page(canary=50, canary_errors=4, canary_again=3, stable=200, stable_again=1)
    )
    assert page.find("default", "churn-predictor") == Backend()
    progress = fly(make_progress(0.0), Statistics.parse(make_routed_page()), page)
    assert read_arms(progress) == {CANARY: (50, 7), STABLE: (200, 1)}


def read_pods(now: float, **pages: dict[str, int]) -> Statistics:
    readings = [Statistics.parse(make_routed_page(**counts), pod, now) for pod, counts in pages.items()]
    found = readings[0]
    for other in readings[1:]:
        found = found.join(other)
    return found


def test_pods_of_a_gateway_add_up_whenever_they_come_and_start_anew():
    began = 1000.0
    a, b = {"canary": 70, "stable": 700, "uptime": 500}, {"canary": 30, "stable": 300, "uptime": 400}
    progress = fly(make_progress(began), read_pods(1000.0, a=a, b=b))
    assert read_arms(progress) == {CANARY: (0, 0), STABLE: (0, 0)}
    # One is away for a reading, and has lost nothing when it is back.
    a |= {"canary": 80, "canary_errors": 1, "uptime": 510}
    progress = fly(progress, read_pods(1010.0, a=a))
    b |= {"canary": 35, "uptime": 420}
    progress = fly(progress, read_pods(1020.0, a=a | {"uptime": 520}, b=b))
    assert read_arms(progress)[CANARY] == (15, 1)
    # One is new, and has counted from 0; another was there all the time, but is seen for the first time.
    new, old = {"canary": 9, "uptime": 5}, {"canary": 1000, "canary_errors": 900, "uptime": 900}
    progress = fly(progress, read_pods(1030.0, a=a | {"uptime": 530}, c=new, d=old))
    assert read_arms(progress)[CANARY] == (24, 1)
    old |= {"canary": 1002, "canary_errors": 901, "uptime": 910}
    progress = fly(progress, read_pods(1040.0, c=new | {"uptime": 15}, d=old))
    assert read_arms(progress)[CANARY] == (26, 2)
    # One started anew and is past what it had: its age tells.
    progress = fly(progress, read_pods(1300.0, a={"canary": 90, "uptime": 100}))
    assert read_arms(progress)[CANARY] == (116, 2)
    again = Progress.model_validate_json(progress.model_dump_json())
    assert read_arms(fly(again, read_pods(1301.0, a={"canary": 91, "uptime": 101})))[CANARY] == (117, 2)
