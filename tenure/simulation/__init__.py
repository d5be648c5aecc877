"""Customers of the stream part, played: what they send, what happens to them, when that becomes known."""
