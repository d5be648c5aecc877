"""The laptop platform: the five addresses on loopback, without Docker or Kubernetes."""
