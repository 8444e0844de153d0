"""Ingest: pipelines from sources through functions and gates into sinks, run part by part, each part once."""

from __future__ import annotations

from ingest.batch import PartReport, RunReport
from ingest.operations import Ingest
from ingest.pipeline import Pipeline
from ingest.sinks.groups import GroupSink
from ingest.sinks.tables import TableSink
from ingest.sources.files import FileSource
from ingest.sources.memory import MemorySource
from ingest.sources.sql import SqlSource

__all__ = [
    "FileSource",
    "GroupSink",
    "Ingest",
    "MemorySource",
    "PartReport",
    "Pipeline",
    "RunReport",
    "SqlSource",
    "TableSink",
]
