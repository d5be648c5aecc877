from __future__ import annotations

from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.errors import RefusedError, UnreachableError
from serving.pilot.gateway import Backend, Gateway, Statistics, add_up, count, to_traffic
from tenure.judgement import Progress

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
envoy_cluster_endpoint_rq_error{envoy_cluster_name="default/churn-b1-predictor/http",envoy_endpoint_address="127.0.0.1:1"} 18
envoy_cluster_endpoint_rq_total{envoy_cluster_name="default/churn-b1-predictor/http",envoy_endpoint_address="127.0.0.1:1"} 100
envoy_cluster_endpoint_rq_total{envoy_cluster_name="default/churn-b1-predictor/grpc",envoy_endpoint_address="127.0.0.1:2"} 5
envoy_cluster_endpoint_rq_total{envoy_cluster_name="other",envoy_endpoint_address="127.0.0.1:2"} 5
envoy_server_uptime{} 5
"""  # noqa: E501


def test_counters_of_processes_protocols_and_pairs_come_together():
    statistics = Statistics.parse(PAGE)
    _, sums = add_up({}, statistics.find("default", "churn-b1-predictor").count_raw(None))
    assert sums == {"requests": 105, "errors": 25, "answers": 93}
    assert statistics.find("default", "unknown") == Backend()


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
    arms[0].tries["default/churn-b1-predictor/http@127.0.0.1:1"] += 10
    arms[0].failures["default/churn-b1-predictor/http@127.0.0.1:1"] += 2
    arms[0].tries["default/churn-b1-predictor/http@127.0.0.1:9"] = 4  # a process that was started since
    progress = count(Progress.model_validate_json(progress.model_dump_json()), *arms)
    traffic = to_traffic([progress.counters["canary"]])
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
