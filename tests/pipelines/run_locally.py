"""Run the compiled pipeline with kfp.local: `run_locally.py PACKAGE ROOT CACHE PARAMETERS`.

A process of its own, because kfp.local's configuration is global to the process.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path


def main(package: str, root: str, cache: str, parameters: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import components, local
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=root,
        workspace_root=str(Path(root) / "workspace"),  # kfp.local deletes it
        enable_caching=True,
        cache_root=cache,
    )
    components.load_component_from_file(package)(**json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
