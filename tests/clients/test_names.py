"""What services must spell alike."""

from __future__ import annotations

import pytest

from clients import names

DIGEST = "0123456789abcdef" * 4


def test_stable_is_called_stable_until_it_has_a_name() -> None:
    assert names.stable_name({"spec": {"predictor": {"model": {}}}}) == "stable"
    assert names.stable_name({"spec": {"predictor": {"name": "b0123"}}}) == "b0123"


def test_services_are_called_as_kserve_calls_them() -> None:
    assert names.service_name("telco", None) == "telco-predictor"
    assert names.service_name("telco", "stable") == "telco-predictor"
    assert names.service_name("telco", "b01") == "telco-b01-predictor"


def test_bundle_addresses_lead_back_to_the_digest() -> None:
    uri = names.bundle_uri("bucket", DIGEST)
    assert uri == f"s3://bucket/bundles/{DIGEST}"
    assert names.digest_of(uri) == names.digest_of(uri + "/") == DIGEST
    assert names.canary_name(DIGEST) == "b0123456789"
    with pytest.raises(ValueError, match="SHA-256"):
        names.digest_of("s3://bucket/bundles/latest")


def test_hosts_are_told_by_document_or_name() -> None:
    document = {"metadata": {"name": "telco"}}
    assert names.hostname(document, "default", "example.com") == "telco-default.example.com"
    assert names.hostname("telco", "default", "example.com") == "telco-default.example.com"


def test_every_annotation_of_ours_that_changes_is_kept_from_the_pods():
    ours = {
        value
        for name, value in vars(names).items()
        if isinstance(value, str) and value.startswith("tenure.dev/") and name != "PROJECT_LABEL"
    }
    assert set(names.OWN_ANNOTATIONS) == ours
