"""The ledger: every prediction, every label, and what was decided because of them."""
