"""Datasets: a spine and what its rows could have known, certified and kept. ``builder`` is the way in."""
