"""`make up`: Tenure on a kind cluster of its own, or on one that is there already."""
