"""Drift: whether customers, scores, outcomes or performance have changed since a champion was trained.

A window of predictions is compared column by column with the champion's reference (`reference`, `backend`), a
difference counts if it is significant over the champion's whole life (`spending`, `bound`) and material
(`effect`), and what was found is a `verdict`. `monitor` puts these together.
"""
