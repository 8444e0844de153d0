"""Seam Source: where rows come from."""
