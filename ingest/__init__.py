"""Batch and streaming ingest: sources, pipelines, sinks."""
