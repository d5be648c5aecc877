"""The KServe model server for churn bundles."""
