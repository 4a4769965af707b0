"""A data set as projects of the CoOp family write them: split file, few-shot sampling, base and new classes."""

import math
import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import mkdir_if_missing, read_json


@DATASET_REGISTRY.register()
class FamilyDataset(DatasetBase):
    dataset_dir = "family"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        mkdir_if_missing(os.path.join(self.dataset_dir, "split_fewshot"))
        train, val, test = self.read_split(os.path.join(self.dataset_dir, "split.json"))
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train = self.generate_fewshot_dataset(train, num_shots=shots)
            val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4))
        train, val, test = self.subsample(train, val, test, part=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)

    def read_split(self, path):
        split = read_json(path)
        return [
            [Datum(impath=os.path.join(self.image_dir, p), label=int(y), classname=c) for p, y, c in split[part]]
            for part in ("train", "val", "test")
        ]

    @staticmethod
    def subsample(*parts, part="all"):
        if part == "all":
            return parts
        labels = sorted({item.label for item in parts[0]})
        m = math.ceil(len(labels) / 2)
        relabel = {y: i for i, y in enumerate(labels[:m] if part == "base" else labels[m:])}
        return [
            [Datum(impath=i.impath, label=relabel[i.label], classname=i.classname) for i in items if i.label in relabel]
            for items in parts
        ]
