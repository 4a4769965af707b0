"""What the tests of runs with cached features share."""

import torch


def stores(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "digests"}


@torch.no_grad()
def logits(trainer, loader=None):
    """Of all test images, in their order."""
    trainer.set_model_mode("eval")
    batches = trainer.test_loader if loader is None else loader
    return torch.cat([trainer.model_inference(trainer.parse_batch_test(batch)[0]) for batch in batches])


def run(trainer):
    """Train if there is something to train, and test."""
    if trainer._models:
        trainer.train()
    else:
        trainer.evaluate()
    return trainer
