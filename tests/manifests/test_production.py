"""The example for a site with managed services: what it must get right that `kind` does not need."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

AUTHORITY = "/etc/tenure/postgresql/ca.crt"
"""Where pods find the certificates that PostgreSQL's is checked against."""
USERS_OF_POSTGRESQL = ["tenure-detector", "tenure-pilot", "tenure-console", "tenure-mlflow"]


def test_mlflow_checks_the_certificate_of_postgresql(production: Any) -> None:
    """By a file that is there: "system" means a directory of wherever the driver's OpenSSL was built."""
    (container,) = production.get("Deployment", "tenure-mlflow")["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    (config,) = (
        one for one in production.list("ConfigMap") if one["metadata"]["name"].startswith("tenure-mlflow-")
    )
    (login,) = (
        line.partition("=")[2].strip()
        for line in config["data"]["basic_auth.ini"].splitlines()
        if line.startswith("database_uri")
    )
    assert login == environment["MLFLOW_BACKEND_STORE_URI"]
    assert parse_qs(urlsplit(login).query) == {"sslmode": ["verify-full"], "sslrootcert": [AUTHORITY]}


@pytest.mark.parametrize("name", USERS_OF_POSTGRESQL)
def test_everybody_who_needs_it_finds_the_authority(production: Any, name: str) -> None:
    pod = production.get("Deployment", name)["spec"]["template"]["spec"]
    (volume,) = (
        one for one in pod["volumes"] if one.get("configMap", {}).get("name") == "tenure-postgresql-ca"
    )
    (container,) = pod["containers"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == volume["name"])
    assert mount["readOnly"] is True
    paths = {item["path"] for item in volume["configMap"]["items"]}
    assert {f"{mount['mountPath']}/{path}" for path in paths} == {AUTHORITY}


def test_customers_come_by_https(production: Any) -> None:
    """Their host name (NAME-NAMESPACE.DOMAIN) has a listener with a certificate, on our Gateway."""
    settings = production.get("ConfigMap", "tenure-settings")["data"]
    namespace, _, name = settings["TENURE_GATEWAY"].partition("/")
    listeners = {one["name"]: one for one in production.get("Gateway", name, namespace)["spec"]["listeners"]}
    secure = listeners["https"]
    assert (secure["port"], secure["protocol"]) == (443, "HTTPS")
    assert secure["tls"]["certificateRefs"]
    assert secure["hostname"] == f"*.{settings['TENURE_INGRESS_DOMAIN']}"
    # Routes carry no section: they belong to both. Pods enter by the Service for the plain one.
    assert listeners["http"]["port"] == 80
