"""On a GPU: a training step only queues work, and what is trained is what the CPU trains."""

import re

import pytest
import torch

import train
from tests.trainers.every import STEPPED, TRAINED, logits_of, node_of
from trainers.captured import WARM_UPS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def full_fp32(monkeypatch):
    """Convolutions in fp32 on the GPU, too; by default torch lets them round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("prec", ["fp32", "bf16"])  # amp's scaler must look at the gradients before it steps
@pytest.mark.parametrize("name", STEPPED)
def test_a_step_does_not_wait_for_the_gpu(make_any, name, prec):
    trainer = make_any(name, "DEVICE", "cuda", f"TRAINER.{node_of(name)}.PREC", prec)
    step, watched = trainer.forward_backward, []

    def watching(batch):
        if trainer.epoch == 0:  # what is computed once may wait
            return step(batch)
        torch.cuda.set_sync_debug_mode("error")
        try:
            watched.append(None)
            return step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.forward_backward = watching
    trainer.train()
    assert watched


@pytest.mark.parametrize("prec", ["fp32", "bf16"])
@pytest.mark.parametrize("name", STEPPED)
def test_a_graph_trains_the_same(make_any, name, prec):
    trained, opts = [], ("DEVICE", "cuda", f"TRAINER.{node_of(name)}.PREC", prec, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    for graphed in (False, True):
        trainer = make_any(name, *opts, "CUDA_GRAPH", graphed, output=f"graph {graphed}")
        trainer.train()
        trained.append({key: p.detach().clone() for key, p in trainer.method.state_dict().items()})
    assert trainer.graph._graph is not None
    for key, value in trained[0].items():
        torch.testing.assert_close(trained[1][key], value, atol=1e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", TRAINED)
def test_a_graph_infers_the_same(make_any, name, monkeypatch):
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(None) or replay(graph))
    results = []
    for graphed in (False, True):
        opts = ("DEVICE", "cuda", "CUDA_GRAPH", graphed, "DATALOADER.TEST.BATCH_SIZE", 1)
        trainer = make_any(name, *opts, output=f"graph {graphed}")
        trainer.train()
        replays.clear()
        logits, process = [], trainer.evaluator.process
        trainer.evaluator.process = lambda out, label, process=process, logits=logits: (
            logits.append(out),
            process(out, label),
        )
        trainer.test()
        results.append(torch.cat(logits))
    assert len(replays) == len(logits) - WARM_UPS
    torch.testing.assert_close(results[1], results[0], atol=1e-2, rtol=1e-3)  # of two trainings


@pytest.mark.parametrize("name", STEPPED)  # LinearProbe takes another solver there
def test_the_gpu_trains_what_the_cpu_does(make_any, name):
    trained, images = {}, torch.randn(5, 3, 32, 32)
    for device in ("cpu", "cuda"):
        trainer = make_any(name, "DEVICE", device, output=device)
        trainer.train()
        trained[device] = logits_of(trainer, images.to(device)).cpu()
    torch.testing.assert_close(trained["cuda"], trained["cpu"], atol=0.02, rtol=1e-3)


def test_a_dry_run_counts_the_memory_of_the_gpu(command, capsys):
    flags = ("--dry-run",)
    argv = command("DEVICE", "cuda", "TRAINER.COOP.N_CTX", "2", flags=flags)
    train.main(train.parse_args(argv))
    out = capsys.readouterr().out
    assert "Estimate for cuda, from 3 steps" in out
    assert re.search(
        rf"memory +\d\.\d GiB of \d+\.\d GiB on {re.escape(torch.cuda.get_device_name())}, tensors at their peak", out
    )
