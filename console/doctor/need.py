"""What a kind cluster needs of a machine: `make up`, its check and `tenure doctor --pre` use these."""

from __future__ import annotations

GIB = 1 << 30

MEMORY = {True: 8 * GIB, False: 5 * GIB}
"""Memory for Docker, with and without Kubeflow Pipelines (docs/cluster.md has the parts)."""
MEMORY_SHORTFALL = 0.97
"""A machine of 8 GiB shows a little less."""
CPUS = 4
"""With fewer it works, slowly."""
DISK = {False: 30 * GIB, True: 8 * GIB}
"""Free disk where Docker keeps images, without a cluster and with one, which has its images and volumes."""
INOTIFY_INSTANCES = 512
INOTIFY_WATCHES = 524_288

DOCKER = (20, 10)
KIND = (0, 33)
"""The version that the node's image is made for; another may do."""
KUBECTL = (1, 32)
KUBERNETES = (1, 32)
"""KServe's own minimum."""

GATEWAY_PORT = 8880
"""Of the loopback interface: where the kind cluster's gateway answers."""
