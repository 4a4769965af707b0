import os
import subprocess
import sys
import textwrap


def test_importing_dassl_leaves_the_process_alone():
    code = """
        import logging, random, sys, warnings
        sys.modules["wilds"] = sys.modules["gdown"] = None  # importing either would fail
        before = (sys.stdout, sys.stderr, logging.root.manager.disable, logging.root.level, list(logging.root.handlers))
        state, filters = random.getstate(), len(warnings.filters)
        import dassl.config, dassl.data, dassl.evaluation, dassl.metrics, dassl.modeling.ops, dassl.utils
        after = (sys.stdout, sys.stderr, logging.root.manager.disable, logging.root.level, list(logging.root.handlers))
        assert before == after
        assert random.getstate() == state
        import torch
        assert not torch.cuda.is_initialized()
        from dassl.data.data_manager import (DataManager, DatasetWrapper, build_data_loader, build_dataset,
            build_sampler, build_transform, INTERPOLATION_MODES, read_image)
        from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
        from dassl.data.datasets.base_dataset import Datum, DatasetBase
        from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset
        from dassl.data.samplers import build_sampler, RandomSampler, SequentialSampler
        from dassl.data.transforms.transforms import AVAI_CHOICES, _build_transform_test, _build_transform_train
        from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
        from dassl.metrics import compute_accuracy, compute_distance_matrix
        from dassl.modeling import build_backbone, build_head, build_network, Backbone
        from dassl.utils.tools import read_json
        print("fine")
    """
    root = os.path.join(os.path.dirname(__file__), "../../../Dassl.pytorch")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "fine\n", done.stderr
