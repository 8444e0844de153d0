"""Point in time: the search behind every join. ``history.answer`` is the way in."""
