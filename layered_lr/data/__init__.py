"""Data sets as NumPy arrays, and their batches: every backend gets the same pixels in the same order.

Importing this package imports only NumPy. The functions that need scikit-learn (digits) or pooch (to download CIFAR-10)
import it themselves.
"""

from layered_lr.data.batches import Batches
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.sources import DataSource, dataset_facts, load_dataset

__all__ = ["Batches", "DataSource", "Dataset", "DatasetFacts", "dataset_facts", "load_dataset"]
