"""Bulk loads: sources read, coerced, gated, made visible whole. ``loads.Loader`` is the way in."""
