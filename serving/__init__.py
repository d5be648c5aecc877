"""The long-running services: predictor and pilot."""
