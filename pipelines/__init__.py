"""The pipeline graphs and their compiled form."""
