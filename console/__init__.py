"""What a person sees: the `tenure` command line."""
