"""The web page: what serves, how the canary does, what drifts, what runs. It only reads."""
