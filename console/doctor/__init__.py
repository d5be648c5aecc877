"""`tenure doctor`: looks at a laptop or a cluster, and says what is wrong and what to do about it.

A reader observes once (`gathering`, `machine`); what it saw is a document (`observation`). Checks are
functions from observations to findings, so that every failure can be played to them.
"""
