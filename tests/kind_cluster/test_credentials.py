from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from installer import credentials
from installer.credentials import Key

PLATFORM = Key("platform", "platform-secret")


USED = {"accesskey": "used", "secretkey": "u"}
GIVEN = Key("given", "g")
PIPELINES = {"accesskey": "pipelines", "secretkey": "p"}


def test_the_key_in_use_wins_then_the_given_one_then_the_pipelines() -> None:
    assert credentials.choose_key(USED, GIVEN, PIPELINES, own=False) == Key("used", "u")
    assert credentials.choose_key(None, GIVEN, PIPELINES, own=False) == GIVEN
    assert credentials.choose_key(None, None, PIPELINES, own=False) == Key("pipelines", "p")
    assert credentials.choose_key(None, None, None, own=False) is None
    assert credentials.choose_key({"accesskey": "half"}, None, None, own=False) is None


def test_in_the_pipelines_own_store_their_key_is_followed_unless_one_is_given() -> None:
    assert credentials.choose_key(USED, None, PIPELINES, own=True) == Key("pipelines", "p")
    assert credentials.choose_key(USED, GIVEN, PIPELINES, own=True) == Key("used", "u")
    assert credentials.choose_key(USED, None, {"accesskey": "half"}, own=True) == Key("used", "u")


def test_a_key_that_changes_leaves_the_model_servers_alone() -> None:
    first = credentials.plan_s3(None, PLATFORM, None)
    second = credentials.plan_s3(first, Key("other", "o"), None)
    assert second == {**first, "accesskey": "other", "secretkey": "o"}


def test_the_model_servers_key_is_another_than_the_platforms() -> None:
    made = credentials.plan_s3(None, PLATFORM, None)
    assert made["AWS_ACCESS_KEY_ID"] != made["accesskey"] == "platform"
    assert made["AWS_SECRET_ACCESS_KEY"] != made["secretkey"]
    assert credentials.plan_s3(None, PLATFORM, Key("reader", "r"))["AWS_ACCESS_KEY_ID"] == "reader"


def test_runs_may_only_read_the_ledger_and_get_no_key_of_the_model_servers() -> None:
    s3 = credentials.plan_s3(None, PLATFORM, None)
    databases = credentials.plan_databases(None)
    copies = credentials.copy_for_runs(s3, databases, credentials.plan_tracking(None))
    values = {one["metadata"]["name"]: credentials.read_secret(one) for one in copies}
    assert {one["metadata"]["namespace"] for one in copies} == {"kubeflow"}
    assert set(values["tenure-s3"] or ()) == {"accesskey", "secretkey"}
    assert values["tenure-databases"] == {"ledger-url": databases["ledger-reader-url"]}
    assert set(values["tenure-tracking"] or ()) == {"username", "password"}
    assert "tenure-detector" not in values, "no step reports outcomes"


@given(
    st.dictionaries(st.sampled_from(["ledger-password", "mlflow-password", "ledger-url", "own"]), st.text())
)
def test_what_is_there_is_never_changed(existing: dict[str, str]) -> None:
    planned = credentials.plan_databases(existing)
    assert {key: planned[key] for key in existing} == existing
    assert credentials.plan_databases(planned) == planned
    made = credentials.plan_detector(None)
    assert credentials.plan_detector(made) == made


def test_two_installations_share_no_password() -> None:
    first, second = credentials.plan_databases(None), credentials.plan_databases(None)
    assert not set(first.values()) & set(second.values())
    assert all(len(first[name]) >= 32 for name in first)


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_a_secret_is_read_as_it_was_made(values: dict[str, str]) -> None:
    assert credentials.read_secret(credentials.make_secret("a", "b", values)) == values


def test_kserve_is_told_how_to_reach_the_store() -> None:
    inside = credentials.describe_store("http://seaweedfs.kubeflow:9000", "us-east-1")
    assert inside["serving.kserve.io/s3-endpoint"] == "seaweedfs.kubeflow:9000"
    assert inside["serving.kserve.io/s3-usehttps"] == "0"
    outside = credentials.describe_store("https://s3.eu-west-1.amazonaws.com", "eu-west-1")
    assert outside["serving.kserve.io/s3-usehttps"] == outside["serving.kserve.io/s3-verifyssl"] == "1"
