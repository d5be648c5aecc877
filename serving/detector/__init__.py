"""The detector: keeps every prediction and label, finds drift, and starts the pipeline anew."""
