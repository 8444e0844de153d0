"""Seam Catalog."""
