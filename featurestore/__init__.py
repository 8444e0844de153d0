"""The feature store: groups, records, time travel, datasets. ``open(path)`` is the way in."""

from __future__ import annotations

from featurestore.datasets.builder import Dataset, DatasetBuilder
from featurestore.datasets.certificate import LeakCertificate
from featurestore.datasets.naive import NaiveComparison, naive_latest
from featurestore.datasets.saved import SavedDataset
from featurestore.groups import FeatureDefinition, FeatureGroup
from featurestore.health import Finding
from featurestore.loading.loads import LoadReport
from featurestore.operations import FeatureStore
from featurestore.operations import open_store as open
from featurestore.reads import Answer, BatchAnswer, RecordPage
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
