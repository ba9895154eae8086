"""Data sets as NumPy arrays, and the batches made of them: the same pixels in the same order for every backend.

Importing this costs NumPy and nothing else: scikit-learn (digits) and pooch (the download of CIFAR-10) are
imported by the functions that need them.
"""

from layered_lr.data.batches import Batches
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.sources import DataSource, dataset_facts, load_dataset

__all__ = ["Batches", "DataSource", "Dataset", "DatasetFacts", "dataset_facts", "load_dataset"]
