"""UCF101: 101 actions, the middle frame of each video."""

from __future__ import annotations

import re
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.errors import DatasetError
from datasets.layout import read_lines
from datasets.local_splits import with_val
from datasets.splits import Item, Split


def action_name(action: str) -> str:
    """ "YoYo" -> "Yo_Yo"."""
    return "_".join(re.findall(r"[A-Z][^A-Z]*", action))


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    n_classes = 101
    counts = (7_639, 1_898, 3_783)
    published = "875b6350cc32a4912942a97b5ef3b45c2de6c52324cfc77c6f741a1edac421da"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        lists = folder / "ucfTrainTestlist"
        labels = {}
        for line in read_lines(lists / "classInd.txt", "list of actions", cls.__name__):
            number, _, action = line.partition(" ")
            if not number.isdecimal() or not action.isalpha():
                raise DatasetError(f"{lists / 'classInd.txt'} must have lines 'number Action', got {line!r:.80}.")
            labels[action] = int(number) - 1

        def listed(name: str) -> list[Item]:
            """Lines "Action/v_Action_g01_c01.avi", in the training list with the class behind them."""
            items = []
            for line in read_lines(lists / name, "video list", cls.__name__):
                action, _, video = line.split()[0].partition("/")
                if action not in labels:
                    raise DatasetError(f"{lists / name} lists {line}, whose action is not in classInd.txt.")
                folder_name = action_name(action)
                items.append(Item(f"{folder_name}/{video.removesuffix('.avi')}.jpg", labels[action], folder_name))
            return items

        return with_val(listed("trainlist01.txt"), listed("testlist01.txt"))
