"""What a step gets on a cluster: a share of a node, a time limit, other attempts, and its settings.

All of it stands in the compiled pipeline and is the same everywhere. The laptop's runner takes the attempts
from it; the rest it has by itself: the environment of the platform is already there.
"""

# No `from __future__ import annotations`: see pipelines.training.
from dataclasses import dataclass

from kfp import dsl, kubernetes

CONFIGURATION = "tenure-settings"
"""ConfigMap with the addresses; its keys are the variables' names."""

ADDRESSES = (
    "TENURE_DETECTOR_URL",
    "TENURE_GATEWAY",
    "TENURE_GATEWAY_URL",
    "TENURE_INGRESS_DOMAIN",
    "TENURE_MODEL_ACCOUNT",
    "TENURE_NAMESPACE",
    "TENURE_RUNS_URL",
    "TENURE_S3_BUCKET",
    "TENURE_S3_URL",
    "TENURE_TRACKING_URL",
)
"""What every step takes from there."""

STORE = "tenure-s3"
TRACKING = "tenure-tracking"
LEDGER = "tenure-databases"
NOTIFICATIONS = "tenure-notifications"

SECRETS = {
    STORE: {"accesskey": "TENURE_S3_ACCESS_KEY", "secretkey": "TENURE_S3_SECRET_KEY"},
    TRACKING: {"username": "TENURE_TRACKING_USERNAME", "password": "TENURE_TRACKING_PASSWORD"},
    LEDGER: {"ledger-url": "TENURE_LEDGER_URL"},
    NOTIFICATIONS: {"urls": "TENURE_NOTIFY_URLS"},
}
"""Secrets, their keys, and the variables that they fill."""

USER = 65532
"""Who a step is: nobody else's number, and not root's."""

SCRATCH = "2Gi"
"""What a step may write outside of its artifacts: its code, temporary files."""


@dataclass(frozen=True)
class Pod:
    """The size of one step.

    Attributes:
        cpu: CPUs that it is sure to get.
        cpu_limit: CPUs that it may use while others do not.
        memory: Memory that it is sure to get.
        memory_limit: With more it is ended.
        seconds: After so long an attempt is ended, a pull of its image included: an image that is not there
            would keep the run waiting for ever.
        retries: Attempts after the first.
        secrets: What it needs beside the store's, of `SECRETS`.
    """

    cpu: str
    cpu_limit: str
    memory: str
    memory_limit: str
    seconds: int
    retries: int = 2
    secrets: tuple[str, ...] = ()


def fit_pod(task: dsl.PipelineTask, pod: Pod) -> None:
    """Give a task what `pod` says, and the settings of the platform."""
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu_limit)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory_limit)
    _set_retries(task, pod)
    kubernetes.set_timeout(task, pod.seconds)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    # For a root file system that cannot be written, and so that a step cannot fill its node's disk.
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=SCRATCH)  # noqa: S108 - the mount's place # nosec B108
    # All optional: a missing key would leave the pod waiting without a word, where a missing setting makes
    # the step say which.
    kubernetes.use_config_map_as_env(task, CONFIGURATION, {name: name for name in ADDRESSES}, optional=True)
    for secret in (STORE, *pod.secrets):
        kubernetes.use_secret_as_env(task, secret, dict(SECRETS[secret]), optional=True)


def _set_retries(task: dsl.PipelineTask, pod: Pod) -> None:
    """Try again after 10 s, then 20 s, ...

    Argo counts the longest duration from the beginning of the first attempt, and ends later ones when it is
    over: it must have room for all of them.
    """
    waits = sum(10 * 2**attempt for attempt in range(pod.retries))
    task.set_retry(
        num_retries=pod.retries,
        backoff_duration="10s",
        backoff_factor=2.0,
        backoff_max_duration=f"{(pod.retries + 1) * (pod.seconds + 120) + waits}s",
    )
