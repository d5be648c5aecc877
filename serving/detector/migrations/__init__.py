"""Revisions of the ledger, in the order of their numbers; there is no way back but a backup."""
