"""The feature store: groups, records, time travel, datasets. ``open(path)`` is the way in."""

from __future__ import annotations

from featurestore.groups import FeatureDefinition, FeatureGroup
from featurestore.operations import FeatureStore
from featurestore.operations import open_store as open
from featurestore.reads import Answer, BatchAnswer, RecordPage
from featurestore.writes import Receipt

__all__ = [
    "Answer",
    "BatchAnswer",
    "FeatureDefinition",
    "FeatureGroup",
    "FeatureStore",
    "Receipt",
    "RecordPage",
    "open",
]
