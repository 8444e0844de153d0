"""Side-by-side timings against peers and against the physical limit. Opt-in: nothing here runs in the test command."""
