"""Puts the rooms together; every door."""
