"""The verbs of the ``tilth`` command, by noun."""
