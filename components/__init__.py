"""One module per pipeline component: read artifacts, call the domain, write artifacts."""
