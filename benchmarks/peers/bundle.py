"""What a peer must know of a bundle before it loads anything heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATATYPES = {"string": "BYTES", "float": "FP64", "integer": "INT64", "boolean": "BOOL"}


def read_document(directory: Path, name: str) -> Any:
    """Return one of the bundle's JSON files."""
    return json.loads((directory / name).read_bytes())


def read_datatypes(directory: Path) -> dict[str, str]:
    """Return the features and their V2 datatypes, in the trees' order."""
    types = {
        column["name"]: column["type"] for column in read_document(directory, "contract.json")["columns"]
    }
    features = read_document(directory, "featuriser.json")["features"]
    return {feature["name"]: DATATYPES[types[feature["name"]]] for feature in features}
