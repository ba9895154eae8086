"""Data sets, and their batches as NumPy arrays: every backend gets the same pixels in the same order.

Importing this package imports only NumPy. The functions that need scikit-learn (digits), pooch (to download CIFAR-10)
or Pillow (images of a folder) import it themselves.
"""

from layered_lr.data.batches import Batches
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.image_folder import ImageFolder
from layered_lr.data.samples import Samples
from layered_lr.data.sources import DataSource, dataset_facts, load_dataset
from layered_lr.data.stored_images import StoredImages
from layered_lr.data.transforms import Transform

__all__ = [
    "Batches",
    "DataSource",
    "Dataset",
    "DatasetFacts",
    "ImageFolder",
    "Samples",
    "StoredImages",
    "Transform",
    "dataset_facts",
    "load_dataset",
]
