"""The servers that Tenure's is measured beside, each a program: `python -m benchmarks.peers.NAME`.

Each listens on loopback only and is written as its own documentation shows. None uses Tenure's code: they
read the bundle's files by themselves, and their answers are compared with Tenure's before a measurement.
"""
