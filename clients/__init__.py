"""Typed ways to the five addresses: services, runs, store, tracking, ledger."""
