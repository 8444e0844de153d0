"""The feature store: groups, records, time travel, datasets. ``open(path)`` is the way in."""

from __future__ import annotations

from featurestore.certificate import LeakCertificate
from featurestore.datasets import Dataset, DatasetBuilder
from featurestore.groups import FeatureDefinition, FeatureGroup
from featurestore.health import Finding
from featurestore.loads import LoadReport
from featurestore.naive import NaiveComparison, naive_latest
from featurestore.operations import FeatureStore
from featurestore.operations import open_store as open
from featurestore.reads import Answer, BatchAnswer, RecordPage
from featurestore.saved import SavedDataset
from featurestore.writes import Receipt

__all__ = [
    "Answer",
    "BatchAnswer",
    "Dataset",
    "DatasetBuilder",
    "FeatureDefinition",
    "FeatureGroup",
    "FeatureStore",
    "Finding",
    "LeakCertificate",
    "LoadReport",
    "NaiveComparison",
    "Receipt",
    "RecordPage",
    "SavedDataset",
    "naive_latest",
    "open",
]
