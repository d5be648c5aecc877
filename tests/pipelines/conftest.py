"""The five addresses, as the components' tests build them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "components_conftest", Path(__file__).parents[1] / "components" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_module.__name__] = _module
_spec.loader.exec_module(_module)

stand_in = _module.stand_in
addresses = _module.addresses
settings = _module.settings
services = _module.services
tracking = _module.tracking
make = _module.make
part = _module.part
