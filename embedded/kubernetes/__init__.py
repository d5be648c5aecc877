"""The laptop's small Kubernetes API: InferenceServices, HTTPRoutes, and what kubectl needs beside them."""
