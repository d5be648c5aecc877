"""The object store: SeaweedFS's single server with its S3 gateway."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

from embedded.certificates import Certificates
from embedded.errors import EmbeddedError
from embedded.home import Home, Ports, write_private
from embedded.ports import LOOPBACK
from embedded.program import Program

_DATA = "data"
_IDENTITIES = "identities.json"
_VOLUME_MEGABYTES = 256
_VOLUMES = 64  # a bucket takes 7 at once; 16 GiB in all, allocated as they fill
_MEMORY = "256MiB"
_CACHE_MEGABYTES = 16


def find_script(name: str) -> Path:
    """Return the program `name` of this Python environment.

    Raises:
        EmbeddedError: The environment lacks it.
    """
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise EmbeddedError(
            f"the program {name} is not in {sysconfig.get_path('scripts')}; create the environment again "
            "with `make environment`"
        )
    return Path(found)


def write_identities(home: Home, bucket: str) -> None:
    """Write who may enter the store: the platform's own key alone, and it only into `bucket`."""
    (home.store_dir / _DATA).mkdir(mode=0o700, exist_ok=True)
    write_private(home.store_dir / _IDENTITIES, _render_identities(home, bucket))


def make_store(home: Home, certificates: Certificates) -> Program:
    """Return the store's program; `write_identities` goes before its start."""
    ports = home.state.ports
    key = home.secrets.s3_internal_key.get_secret_value()
    return Program(
        name="store",
        command=(
            str(find_script("weed")),
            "-logtostderr=true",
            "server",
            f"-dir={home.store_dir / _DATA}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-master.port={ports.s3_master}",
            f"-master.port.grpc={ports.s3_master_grpc}",
            f"-master.volumeSizeLimitMB={_VOLUME_MEGABYTES}",
            "-master.telemetry=false",
            "-master.peers=none",  # alone: no second of waiting for an election
            f"-volume.port={ports.s3_volume}",
            f"-volume.port.grpc={ports.s3_volume_grpc}",
            f"-volume.max={_VOLUMES}",
            "-volume.preStopSeconds=0",
            "-filer",
            f"-filer.port={ports.s3_filer}",
            f"-filer.port.grpc={ports.s3_filer_grpc}",
            "-filer.exposeDirectoryData=false",
            "-s3",
            f"-s3.port={ports.s3}",
            f"-s3.port.grpc={ports.s3_grpc}",
            f"-s3.config={home.store_dir / _IDENTITIES}",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.cacheCapacityMB={_CACHE_MEGABYTES}",
        ),
        environment={
            "GOMEMLIMIT": _MEMORY,
            # Else anybody on the machine could read and write beside S3, at the volume's and filer's ports.
            "WEED_JWT_SIGNING_KEY": key,
            "WEED_JWT_SIGNING_READ_KEY": key,
            "WEED_JWT_FILER_SIGNING_KEY": key,
            "WEED_JWT_FILER_SIGNING_READ_KEY": key,
            "WEED_S3_SSE_KEK_PASSPHRASE": key,
            **_close_ports(certificates),
        },
        directory=home.store_dir,
        # Its graceful end waits 15 s for streams of its own that never end; what it has acknowledged is with
        # the kernel already.
        stop_seconds=1,
    )


def _close_ports(certificates: Certificates) -> dict[str, str]:
    """Return settings by which the parts of the store speak to nobody without the home's own key.

    The keys above guard HTTP only. By gRPC anybody on the machine could list, move and delete what lies in
    the filer, and a plain GET at the master's port, also a browser's, deletes a whole bucket.
    """
    authority, pair = str(certificates.ca), str(certificates.server)
    variables = {"WEED_GRPC_CA": authority, "WEED_HTTPS_MASTER_CA": authority}
    for part in ("GRPC_MASTER", "GRPC_VOLUME", "GRPC_FILER", "GRPC_S3", "GRPC_CLIENT", "HTTPS_MASTER"):
        # The file holds both: certificate and key.
        variables |= {f"WEED_{part}_CERT": pair, f"WEED_{part}_KEY": pair}
    return variables


def remove_sockets(ports: Ports) -> None:
    """Remove the unix sockets that SeaweedFS leaves in /tmp; their place cannot be chosen."""
    names = [
        f"s3-{ports.s3}",
        f"filer-{ports.s3_filer}",
        f"master-grpc-{ports.s3_master_grpc}",
        f"volume-grpc-{ports.s3_volume_grpc}",
        f"filer-grpc-{ports.s3_filer_grpc}",
        f"s3-grpc-{ports.s3_grpc}",
    ]
    for name in names:
        Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)  # noqa: S108 - SeaweedFS's choice # nosec B108


def _render_identities(home: Home, bucket: str) -> str:
    actions = [f"{action}:{bucket}" for action in ("Admin", "Read", "Write", "List", "Tagging")]
    credentials = {
        "accessKey": home.secrets.s3_access_key.get_secret_value(),
        "secretKey": home.secrets.s3_secret_key.get_secret_value(),
    }
    identity = {"name": "tenure", "credentials": [credentials], "actions": actions}
    return json.dumps({"identities": [identity]}, indent=2) + "\n"
