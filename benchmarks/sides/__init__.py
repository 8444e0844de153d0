"""One module per side of a comparison, each run as a process of its own that answers requests on its input."""
