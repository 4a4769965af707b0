"""What every trainer of this project promises: what moves in training, what is saved, what inference gives.

The trainers and what the tests must be told of some: every.py.
"""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.trainers.every import (
    EXEMPT,
    NAMES,
    NO_GRADIENT,
    OPTIONS,
    OTHER_VALUE,
    STEPPED,
    TESTED_ELSEWHERE,
    TRAINED,
    UNTRAINED,
    WITH_TEXT,
    copied,
    defaults,
    extra_step,
    final_of,
    logits_of,
    moved,
    node_of,
    record_of,
    train_and_watch,
    without_gradient,
)
from tools.count_parameters import saved_buffers


def test_the_tables_name_what_there_is():
    nodes = {node_of(name): set(defaults()[node_of(name)]) for name in NAMES}
    keys = {f"{node}.{key}" for node in nodes for key in nodes[node]}
    assert {*UNTRAINED, *OPTIONS, *EXEMPT, *NO_GRADIENT} <= set(NAMES)
    assert {subject for row in EXEMPT.values() for subject in row} <= {"steps", "text"}
    assert set(OTHER_VALUE) <= keys | set.union(*nodes.values())
    assert set(TESTED_ELSEWHERE) <= keys | set(nodes)
    assert all((Path(__file__).parents[2] / file).is_file() for file in TESTED_ELSEWHERE.values())


# --- training


@pytest.mark.parametrize("name", STEPPED)
def test_every_trained_tensor_has_a_gradient(make_any, name):
    norms = train_and_watch(make_any(name))
    assert norms
    assert without_gradient(norms) == set(NO_GRADIENT.get(name, {}))


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_moves_and_nothing_else(make_any, name):
    trainer = make_any(name)
    method, model = trainer.method, trainer.backbone.clip
    trained = {id(p) for p in method.trainables().values()}
    before, frozen = copied(method.state_dict()), copied(model.state_dict())
    trainer.train()
    buffers = {key for key, _ in saved_buffers(method)}
    assert moved(before, method.state_dict()) - buffers == set(method.trainables()) - set(NO_GRADIENT.get(name, {}))
    tuned = {key for key, p in model.named_parameters() if id(p) in trained}
    assert moved(frozen, model.state_dict()) <= tuned
    assert all(p.grad is None and not p.requires_grad for key, p in model.named_parameters() if key not in tuned)


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_method_without_trained_tensors_is_not_trained(make_any, name):
    trainer = make_any(name)
    assert not trainer.method.trainables()
    assert not trainer.method.state_dict()
    with pytest.raises(RuntimeError, match=f"nothing to train: TRAINER.NAME {name} registers no model"):
        trainer.train()


@pytest.mark.parametrize("name", STEPPED)
def test_the_optimiser_holds_exactly_the_trained_tensors(make_any, name):
    trainer = make_any(name)
    held = [id(p) for o in trainer._optims.values() for group in o.param_groups for p in group["params"]]
    assert held == [id(p) for p in trainer.method.trainables().values()]


@pytest.mark.parametrize("prec", ["fp32", "amp", "bf16"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_precision_trains_fp32_tensors(make_any, name, prec):
    trainer = make_any(name, f"TRAINER.{node_of(name)}.PREC", prec)
    trainer.train()  # refuses a loss that is not finite
    for tensor in trainer.method.state_dict().values():
        assert not tensor.is_floating_point() or (tensor.dtype == torch.float32 and tensor.isfinite().all())


# --- files


@pytest.mark.parametrize("name", TRAINED)
def test_a_checkpoint_holds_what_is_trained_and_buffers(make_any, run_folder, name):
    trainer = make_any(name)
    trainer.train()
    path = Path(run_folder) / "prompt_learner" / f"model.pth.tar-{trainer.max_epoch}"
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert set(saved) == {*trainer.method.trainables(), *(key for key, _ in saved_buffers(trainer.method))}


@pytest.mark.parametrize("name", TRAINED)
def test_a_reloaded_model_gives_the_same_logits_and_result(make_any, images, run_folder, name):
    trainer = make_any(name)
    trainer.train()
    again = make_any(name, output="again")
    again.evaluate(run_folder, epoch=trainer.max_epoch)
    assert torch.equal(logits_of(trainer, images), logits_of(again, images))
    assert final_of(again) == final_of(trainer)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_used_on_other_classes_or_says_that_it_cannot(make_any, images, run_folder, name):
    trainer, every = make_any(name), make_any(name, classes="all", output="all")
    if name not in UNTRAINED:
        trainer.train()
    if trainer.method.tied_to_classes:
        with pytest.raises(RuntimeError, match="classes"):
            every.load_model(run_folder, epoch=trainer.max_epoch)
        return
    every.evaluate(
        run_folder if name not in UNTRAINED else "", epoch=trainer.max_epoch if name not in UNTRAINED else None
    )
    logits = logits_of(every, images)
    assert logits.shape == (5, 4)
    assert logits.isfinite().all()
    trainer.method.eval()
    with torch.no_grad():
        torch.testing.assert_close(trainer.method(images, every.method.space), logits)


@pytest.mark.parametrize("name", STEPPED)
def test_an_interrupted_run_goes_on_bit_for_bit(make_any, name, monkeypatch):
    whole = make_any(name, output="whole")
    whole.train()
    broken = make_any(name, output="broken")
    finish = broken.finish_step

    def stop(losses):
        if (broken.epoch, broken.batch_idx) == (1, 0):  # the first step of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        finish(losses)

    monkeypatch.setattr(broken, "finish_step", stop)
    with pytest.raises(SystemExit):
        broken.train()
    again = make_any(name, output="broken")
    again.train()
    assert not moved(whole.method.state_dict(), again.method.state_dict())
    assert [row["train"] for row in record_of(again)["epochs"]] == [row["train"] for row in record_of(whole)["epochs"]]
    assert record_of(again)["resumed"] == 1
    assert final_of(again) == final_of(whole)


# --- inference


@pytest.mark.parametrize("name", WITH_TEXT)
def test_cached_text_is_what_would_be_computed(make_any, images, name):
    trainer = make_any(name, "OPTIM.LR_SCHEDULER", "single_step", "OPTIM.STEPSIZE", "(10,)")  # the last step moves, too
    method = trainer.method
    if name not in UNTRAINED:
        trainer.train()
    method.eval()
    if method.text_depends_on_image:
        with pytest.raises(ValueError, match="has no class vectors: its text features depend on the image"):
            method.class_vectors()
        return
    earlier = method.class_vectors()
    torch.testing.assert_close(earlier, method.text(), atol=1e-6, rtol=0)
    assert method.class_vectors() is earlier
    if name not in UNTRAINED:
        extra_step(trainer, images)
        torch.testing.assert_close(method.class_vectors(), method.text(), atol=1e-6, rtol=0)
        assert torch.equal(method.class_vectors(), earlier) != method.text_trains


@pytest.mark.parametrize("name", NAMES)
def test_an_images_logits_do_not_depend_on_its_batch(make_any, images, name):
    trainer = make_any(name)
    if name not in UNTRAINED:
        trainer.train()
    single = torch.cat([logits_of(trainer, image[None]) for image in images])
    torch.testing.assert_close(logits_of(trainer, images), single, atol=1e-4, rtol=0)
