"""The pilot: keeps the route in step with the InferenceService and carries out decisions."""
