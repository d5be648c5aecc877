"""Lines of logs and messages that give a cause away."""

from __future__ import annotations

import re
from typing import NamedTuple


class Cause(NamedTuple):
    """Why something fails, and what to do about it."""

    text: str
    fix: str


class _Signature(NamedTuple):
    pattern: re.Pattern[str]
    text: str
    fix: str


def _sign(pattern: str, text: str, fix: str) -> _Signature:
    return _Signature(re.compile(pattern, re.IGNORECASE), text, fix)


_INOTIFY = "sudo sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288"

# The first that matches wins: particular ones stand before general ones.
_SIGNATURES = (
    _sign(
        r"too many open files|inotify_init|fsnotify watcher",
        "the node is out of inotify instances or open files",
        f"on the machine that runs the node: {_INOTIFY} (and into /etc/sysctl.d/), then delete the pod",
    ),
    _sign(
        r'no matches for kind \\?"(?P<kind>\w+)\\?" in version \\?"(?P<version>[\w./]+)\\?"',
        "the cluster does not know {kind} ({version})",
        "install the CRDs of {version} in the version that this program wants, then restart it",
    ),
    _sign(
        r"plugin/loop: Loop|loop detected",
        "the DNS server of the node leads back to the cluster's DNS (a forwarding loop)",
        "give the kubelet a resolv.conf without a loopback nameserver (resolvConf: "
        "/run/systemd/resolve/resolv.conf), then restart the DNS pods",
    ),
    _sign(
        r"exec format error|exec user process caused",
        "the image is built for another processor architecture than the node's",
        "use images for the node's architecture (`kubectl get nodes -o wide`), or a node of the image's",
    ),
    _sign(
        r"no space left on device",
        "the disk is full",
        "free space on the node's disk (`docker system prune`), or enlarge the volume that the message names",
    ),
    _sign(
        r"InvalidAccessKeyId|SignatureDoesNotMatch",
        "the object store does not know the S3 key, or its secret is another one",
        "compare Secret tenure-s3 with the store's own identities; `make up` writes both again",
    ),
    _sign(
        r"S3 error \[404\]|\(404\) when calling the HeadBucket|NoSuchBucket|specified bucket does not exist",
        "the bucket does not exist",
        "create the bucket that TENURE_S3_BUCKET and storageUri name, or correct them",
    ),
    _sign(
        r"AccessDenied|Access Denied|S3 error \[403\]|"
        r"\((403|AccessDenied)\) when calling the \w+ operation|when calling the \w+ operation: Forbidden",
        "the object store refuses this S3 key: it does not know it, or does not let it read there",
        "compare Secret tenure-s3, and the Secret in the pod's ServiceAccount, with the store's identities",
    ),
    _sign(
        r"Unable to locate credentials|NoCredentialsError",
        "no S3 credentials reach the pod",
        "list Secret tenure-s3 in the `secrets` of the pod's ServiceAccount (tenure-predictor), with "
        "KServe's serving.kserve.io/s3-* annotations on it",
    ),
    _sign(
        r"NoSuchKey|Failed to fetch model|no model found|No objects? found",
        "the model is not in the object store",
        "compare storageUri with what is in the bucket; `tenure run` stores the bundle again",
    ),
    _sign(
        r"x509: certificate has expired|certificate has expired or is not yet valid",
        "a certificate has expired (or a clock is wrong)",
        "renew it (with cert-manager: delete its Secret) and check the nodes' clocks",
    ),
    _sign(
        r"x509|certificate signed by unknown authority|certificate verify failed|root certificates",
        "a certificate is not trusted",
        "compare the certificate with the caBundle or authority that the caller has",
    ),
    _sign(
        r'cannot (?P<verb>\w+) resource \\?"(?P<what>[\w./]+)\\?".{0,80}',
        "its account may not {verb} {what}",
        "apply this program's Roles and RoleBindings again; its log names account and namespace",
    ),
    _sign(
        r"password authentication failed|Access denied for user",
        "the database refuses the password",
        "a database keeps the password of its first start: put that into the Secret, or remove its volume",
    ),
    _sign(
        r"Error 1045|Unknown database|Error 1049",
        "the database is not set up",
        "see the log of the database's pod; it may still be at its first start",
    ),
    _sign(
        r"mysql.{0,80}(unexpected EOF|refused|timeout|invalid connection)|:3306:? .{0,40}(refused|timeout)|"
        r"(mysql|3306).{0,120}connect(ion)? ?(refused|timed out)|Lost connection to MySQL",
        "it cannot reach MySQL",
        "look at the mysql pod first: this one recovers once the database answers",
    ),
    _sign(
        r"(5432|postgres\w*).{0,120}(refused|timeout|timed out|not known)",
        "it cannot reach PostgreSQL",
        "look at the database's pod first; then at the NetworkPolicy between the two",
    ),
    _sign(
        r"no such host|Temporary failure in name resolution|Name or service not known|server misbehaving|"
        r"NameResolutionError",
        "a name cannot be resolved",
        "look at the DNS pods (`kubectl -n kube-system get pods -l k8s-app=kube-dns`), then at the spelling",
    ),
    _sign(
        r"address already in use",
        "its port is taken",
        "end the other program at that port, or choose another port",
    ),
    _sign(
        r"Read-only file system",
        "it writes to a read-only file system",
        "mount an emptyDir where it writes (the log names the path)",
    ),
    _sign(
        r"Permission denied|EACCES|Operation not permitted",
        "it may not read or write a file",
        "check runAsUser, fsGroup and the volume's owner",
    ),
    _sign(
        r"dial tcp (?P<where>[\w.:\-\[\]]+):? .{0,60}connection refused",
        "nothing listens at {where}",
        "look at the pods behind that address first",
    ),
    _sign(
        r"dial tcp (?P<where>[\w.:\-\[\]]+):? .{0,60}(i/o timeout|deadline)",
        "{where} does not answer",
        "look at the pods behind that address, then at the NetworkPolicies in between",
    ),
)


def recognise(text: str) -> Cause | None:
    """Return the cause that a log's last lines or a message give away, None when they say nothing known."""
    for signature in _SIGNATURES:
        # The last line that matches: logs repeat themselves, and end with what mattered.
        found = None
        for match in signature.pattern.finditer(text):
            found = match
        if found is not None:
            words = found.groupdict()
            return Cause(signature.text.format(**words), signature.fix.format(**words))
    return None
