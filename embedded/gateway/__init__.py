"""The gateway: HTTPRoutes and model-server processes as Envoy configuration files.

`Gateway.for_home(home)` is all that a caller needs: `prepare()` and `command()` to start Envoy, `publish()`
to change where requests go.
"""

from embedded.gateway.publisher import Gateway, GatewayError
from embedded.gateway.routing import Endpoint, Routing, Service

__all__ = ["Endpoint", "Gateway", "GatewayError", "Routing", "Service"]
