"""The domain of churn prediction: contracts, training, bundles, evaluation and the gate.

Nothing here talks to a network service; every function can be read and tested with nothing running.
"""

__version__ = "0.1.0"
