"""Hooks, registration, log lines, tests, evaluation, and what a run refuses."""

import re
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dassl.engine.trainer as upstream_names
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerBase, TrainerX, build_trainer, progress

LINE = re.compile(
    r"epoch \[\d+/4\] batch \[\d+/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss \d+\.\d{4} \(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr \d\.\d{4}e[+-]\d\d eta \d+:\d\d:\d\d"
)


def test_an_unknown_trainer_is_refused_with_the_nearest_name(toys):
    with pytest.raises(ValueError, match=r"'LinearY' does not exist; expected one of .*LinearX.*do you mean 'LinearX'"):
        build_trainer(SimpleNamespace(TRAINER=SimpleNamespace(NAME="LinearY"), VERBOSE=False))


def test_trainer_module_exposes_the_names_of_dassl():
    names = {"TrainerBase", "SimpleTrainer", "TrainerX", "TrainerXU", "SimpleNet", "SummaryWriter", "MetricMeter"}
    names |= {"AverageMeter", "tolist_if_not", "count_num_param", "load_checkpoint", "save_checkpoint"}
    names |= {"mkdir_if_missing", "resume_from_checkpoint", "load_pretrained_weights", "DataManager", "build_optimizer"}
    names |= {"build_lr_scheduler", "build_head", "build_backbone", "build_evaluator"}
    assert names <= set(vars(upstream_names))


def test_hooks_run_in_order(make):
    calls = []
    trainer = make(OPTIM__MAX_EPOCH=2)
    for name in ("before_train", "before_epoch", "run_epoch", "after_epoch", "after_train"):
        original = getattr(trainer, name)
        setattr(trainer, name, lambda name=name, original=original: (calls.append((name, trainer.epoch)), original()))
    trainer.train()
    per_epoch = [[(name, e) for name in ("before_epoch", "run_epoch", "after_epoch")] for e in (0, 1)]
    assert calls == [("before_train", 0), *per_epoch[0], *per_epoch[1], ("after_train", 1)]


def test_check_cfg_comes_before_cfg_and_data_before_the_model(toys, pictures, tmp_path, monkeypatch):
    calls = []

    class Watched(toys.LinearX):
        def check_cfg(self, cfg):
            calls.append(("check", hasattr(self, "cfg")))

        def build_data_loader(self):
            calls.append(("data", self.device.type))
            super().build_data_loader()

        def build_model(self):
            calls.append(("model", self.num_classes))
            super().build_model()

    trainer = Watched(toys.toy_cfg(pictures, tmp_path))
    assert calls == [("check", False), ("data", "cpu"), ("model", 3)]
    assert trainer.best_result == float("-inf")


def test_registration_errors():
    class Early(TrainerBase):
        def __init__(self):
            self.register_model("model")

    with pytest.raises(AttributeError, match=r"before super\(\).__init__\(\)"):
        Early()
    trainer = TrainerBase()
    trainer.register_model("a", torch.nn.Linear(1, 1))
    with pytest.raises(AssertionError, match="already registered as 'a'"):
        trainer.register_model("a")
    with pytest.raises(AssertionError, match=r"no model is registered as 'b'; there are \['a'\]"):
        trainer.get_model_names("b")
    assert trainer.get_model_names() == trainer.get_model_names("a") == trainer.get_model_names(["a"]) == ["a"]
    with pytest.raises(KeyError, match="mode must be train, test or eval, got 'fit'"):
        trainer.set_model_mode("fit")


def test_modes_touch_registered_models_only():
    trainer = TrainerBase()
    trainer.prompts, trainer.frozen = torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1).eval()
    trainer.register_model("prompts", trainer.prompts)
    trainer.set_model_mode("eval")
    assert not trainer.prompts.training
    trainer.set_model_mode("train")
    assert trainer.prompts.training
    assert not trainer.frozen.training


def test_an_optimiser_under_two_names_is_stepped_once_and_saved_under_both(make, toys, tmp_path, killed, same):
    def shared(output):
        trainer = make(output)
        with torch.random.fork_rng():
            trainer.memory = torch.nn.Linear(1, 1)
        trainer.register_model("memory", trainer.memory, trainer.optim, trainer.sched)
        return trainer

    alone = make("alone")
    alone.train()
    pair = shared("pair")
    pair.train()
    assert pair.lrs == alone.lrs  # a schedule stepped twice per epoch would run ahead
    same(dict(pair.model.state_dict()), dict(alone.model.state_dict()))
    files = [torch.load(tmp_path / "pair" / name / "model.pth.tar-4") for name in ("linear", "memory")]
    same(files[0]["optimizer"], files[1]["optimizer"])
    killed(shared("cut"), 5)
    again = shared("cut")
    again.train()
    same(dict(again.model.state_dict()), dict(alone.model.state_dict()))


def test_log_lines(make, capsys):
    make().train()
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("epoch [")]
    assert len(steps) == 4  # PRINT_FREQ 2, 3 batches
    assert all(LINE.fullmatch(line) for line in steps)
    assert [line.split()[-3] for line in steps] == ["1.0000e-05", "1.0000e-01", "8.5355e-02", "5.0000e-02"]
    end = lines.index("Finish training")
    assert lines[end + 1] == "Finished training"
    assert lines.index("=> result") > end
    assert "Evaluate on the *test* set" in lines
    assert any(re.fullmatch(r"\* accuracy: \d+\.\d+%", line) for line in lines[end:])
    assert re.fullmatch(r"Elapsed: \d+:\d\d:\d\d", lines[-1])


def test_every_batch_has_a_line_if_an_epoch_is_shorter_than_print_freq(make, capsys):
    make(TRAIN__PRINT_FREQ=5).train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch [")]
    assert [line[: len("epoch [1/4] batch [1/3]")] for line in lines] == [
        f"epoch [{e}/4] batch [{b}/3]" for e in range(1, 5) for b in range(1, 4)
    ]
    assert lines[2].split()[-3] == "1.0000e-01"  # the last batch shows the rate of the next epoch, as in Dassl


def test_tensorboard_has_running_averages_at_every_step(make, tmp_path):
    trainer = make()
    losses = []
    step = trainer.forward_backward
    trainer.forward_backward = lambda batch: (lambda out: (losses.append(out["loss"].item()), out)[1])(step(batch))
    trainer.train()
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    scalars = events.Scalars("train/loss")
    assert [event.step for event in scalars] == list(range(12))
    averages = [sum(losses[e * 3 : e * 3 + b + 1]) / (b + 1) for e in range(4) for b in range(3)]
    assert [event.value for event in scalars] == pytest.approx(averages, rel=1e-6)
    assert [event.step for event in events.Scalars("train/lr")] == list(range(12))
    assert events.Scalars("test/accuracy")[0].step == 3


def test_val_falls_back_to_the_test_set(make, capsys):
    trainer = make()
    trainer.test("val")
    trainer.val_loader = None
    trainer.test("val")
    trainer.test("anything")
    out = capsys.readouterr().out
    assert re.findall(r"Evaluate on the \*(\w+)\* set", out) == ["val", "test", "test"]
    assert re.findall(r"\* total: (\d+)", out) == ["6", "9", "9"]


def test_the_best_model_is_kept_and_tested(make, tmp_path, record_of):
    trainer = make(TEST__FINAL_MODEL="best_val", OPTIM__LR=0.01, TRAIN__CHECKPOINT_FREQ=3)
    accuracies = iter([20.0, 60.0, 40.0, 60.0])
    real_test = trainer.test
    trainer.test = lambda split=None: next(accuracies) if split == "val" else real_test()
    trainer.train()
    best = torch.load(tmp_path / "run/linear/model-best.pth.tar")
    assert set(best) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result", "made_with"}
    assert (best["epoch"], best["val_result"]) == (2, 60.0)
    assert torch.equal(trainer.model.state_dict()["2.weight"], best["state_dict"]["2.weight"])
    assert record_of()["final"]["epoch"] == 2
    assert [row["val"]["accuracy"] for row in record_of()["epochs"]] == [20.0, 60.0, 40.0, 60.0]
    assert {p.name for p in (tmp_path / "run/linear").iterdir()} == {
        "model-best.pth.tar",
        "model.pth.tar-3",
        "model.pth.tar-4",
        "checkpoint",
    }
    assert (tmp_path / "run/linear/checkpoint").read_text() == "model.pth.tar-4\n"


def test_the_best_epoch_on_the_test_images_is_called_so(make, tmp_path, record_of, capsys):
    trainer = make(TEST__FINAL_MODEL="released_best_val")
    accuracies, asked, real_test = iter([20.0, 60.0, 40.0, 10.0]), [], trainer.test

    def test(split=None):
        asked.append(split)
        return next(accuracies) if split == "test" else real_test()

    trainer.test = test
    trainer.train()
    assert asked == ["test"] * 4 + [None]
    record, out = record_of(), capsys.readouterr().out
    assert (record["final"]["epoch"], record["final"]["split"], record["final"]["chosen_on"]) == (2, "test", "test")
    assert [(row["val"], row["test"]["accuracy"]) for row in record["epochs"]] == [
        *((None, 20.0), (None, 60.0), (None, 40.0), (None, 10.0))
    ]
    assert "Warning: this epoch was chosen on the test images, as released; the result is their maximum" in out


def test_nan_stops_the_run_and_the_last_good_state_stays(make, tmp_path, record_of):
    trainer = make(TRAIN__CHECKPOINT_FREQ=1)

    def spoil(step):
        if step == 7:
            with torch.no_grad():
                trainer.model[2].bias.fill_(float("nan"))

    trainer.interrupt = spoil
    with pytest.raises(
        FloatingPointError, match=r"NaN in epoch 3, batch 2 of 3 \(loss nan\); try a lower OPTIM.LR"
    ) as e:
        trainer.train()
    assert f"the last good state is in {tmp_path}/run/resume.pth.tar" in str(e.value)
    assert {p.name for p in (tmp_path / "run/linear").glob("model*")} == {"model.pth.tar-1", "model.pth.tar-2"}
    assert not record_of()["finished"]
    state = torch.load(tmp_path / "run/resume.pth.tar", weights_only=True)
    assert state["epoch"] == 2
    assert all(torch.isfinite(value).all() for value in state["models"]["linear"].values())


def test_a_reported_term_that_is_not_finite_stops_the_run(make):
    trainer = make()
    step = trainer.forward_backward
    trainer.forward_backward = lambda batch: {**step(batch), "kd": torch.tensor(float("inf"))}
    with pytest.raises(FloatingPointError, match=r"batch 1 of 3 \(loss [\d.]+, acc [\d.]+, kd inf\)"):
        trainer.train()
    assert trainer.steps == 1  # on a CPU, at once


def test_a_loss_that_is_read_late_is_read_before_anything_is_saved(make, monkeypatch, tmp_path):
    """As on a GPU, where values stay on the device until the next line."""
    late = lambda terms: (list(terms), torch.tensor([float(torch.as_tensor(v).detach()) for v in terms.values()]))  # noqa: E731
    monkeypatch.setattr(progress, "numbers", late)
    trainer = make(TRAIN__CHECKPOINT_SECONDS=1e-9, TRAIN__PRINT_FREQ=3)
    step = trainer.forward_backward

    def spoiled(batch):
        step(batch)
        if trainer.steps == 5:
            torch.nn.init.constant_(trainer.model[2].bias, float("nan"))
        return {"loss": trainer.model[2].bias.sum()}

    trainer.forward_backward = spoiled
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch 2 of 3 \(loss nan\)"):
        trainer.train()
    state = torch.load(tmp_path / "run/resume.pth.tar", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 1)
    assert torch.isfinite(state["models"]["linear"]["2.bias"]).all()


def test_detect_anomaly_outside_a_run():
    trainer = TrainerBase()
    trainer.detect_anomaly(torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match=r"Loss is infinite or NaN: nan; try a lower OPTIM.LR"):
        trainer.detect_anomaly(torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN: inf"):
        trainer.model_backward(torch.tensor(float("inf"), requires_grad=True))


def test_a_finished_run_is_left_alone(make, tmp_path, capsys, record_of):
    make().train()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    accuracy = record_of()["final"]["metrics"]["accuracy"]
    capsys.readouterr()
    trainer = make()
    trainer.train()
    assert trainer.steps == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    said = f"The run in {tmp_path}/run is finished, accuracy {accuracy:.2f}%; delete the folder to train again\n"
    assert capsys.readouterr().out == said
    with pytest.raises(ValueError, match=r"was started with another config \(SEED was 3, is 4\)"):
        make(SEED=4).train()


def test_a_run_that_never_got_anywhere_does_not_bind_the_config(make, record_of):
    trainer = make(OPTIM__LR=0.5)
    trainer.interrupt = lambda step: torch.nn.init.constant_(trainer.model[2].bias, float("inf"))
    with pytest.raises(FloatingPointError):
        trainer.train()
    make(OPTIM__LR=0.1).train()
    assert record_of()["finished"]


def test_a_trainer_without_models_has_nothing_to_train(make, tmp_path):
    trainer = make()
    trainer._models.clear()
    with pytest.raises(RuntimeError, match=r"TRAINER.NAME LinearX registers no model; use --eval-only"):
        trainer.train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [None, 0, "5"])
def test_a_print_freq_that_is_no_number_is_refused(make, value):
    with pytest.raises(ValueError, match=f"PRINT_FREQ must be an integer of at least 1, got {value!r}"):
        make(TRAIN__PRINT_FREQ=value).train()


@pytest.mark.parametrize(("key", "value"), [("FINAL_MODEL", "best"), ("SPLIT", "tset")])
def test_a_misspelt_choice_is_refused_instead_of_meaning_the_other_one(make, key, value):
    with pytest.raises(ValueError, match=f"TEST.{key} must be .* or .*, got '{value}'"):
        make(**{f"TEST__{key}": value})


def test_a_run_without_epochs_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"OPTIM\.MAX_EPOCH must be at least 1, got 0"):
        make(OPTIM__MAX_EPOCH=0).train()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(make, tmp_path):
    (tmp_path / "file").write_text("")
    trainer = make("file/run")
    with pytest.raises(RuntimeError, match=r"Cannot write in .*/file/run \(Not a directory\); .* choose an OUTPUT_DIR"):
        trainer.train()
    assert trainer.steps == 0


def test_evaluate_loads_tests_and_records(make, tmp_path, record_of):
    trainer = make(OPTIM__LR=0.01)
    trainer.train()
    trained = record_of()
    assert trained["final"]["images_per_second"] > 0
    other = make("eval", OPTIM__LR=0.01)
    accuracy = other.evaluate(str(tmp_path / "run"), epoch=4)
    record = record_of("eval")
    assert (record["mode"], record["finished"], record["epochs"]) == ("eval", True, [])
    speed = record["final"]["images_per_second"]
    assert speed > 0
    expected = {**trained["final"], "model_dir": str(tmp_path / "run")}
    assert record["final"] == {**expected, "images_per_second": speed}
    assert accuracy == trained["final"]["metrics"]["accuracy"]
    # in the folder of a training run, its own record stays
    make(OPTIM__LR=0.01).evaluate(str(tmp_path / "run"), epoch=4)
    assert record_of() == trained
    beside = record_of(name="metrics-eval.json")["final"]
    assert beside == {**expected, "images_per_second": beside["images_per_second"]}


def test_an_evaluation_that_finds_no_weights_leaves_an_earlier_result(make, tmp_path, record_of):
    make().train()
    make("eval").evaluate(str(tmp_path / "run"), epoch=4)
    before = record_of("eval")
    with pytest.raises(FileNotFoundError):
        make("eval").evaluate(str(tmp_path / "run"), epoch=7)
    assert record_of("eval") == before


def test_load_model_then_test_records_an_evaluation(make, tmp_path, record_of, capsys):
    make().train()
    trainer = make("eval")
    trainer.load_model(str(tmp_path / "run"), epoch=4)
    assert f"Loaded linear from {tmp_path}/run/linear/model.pth.tar-4 (epoch = 4)" in capsys.readouterr().out
    accuracy = trainer.test()
    record = record_of("eval")
    assert (record["mode"], record["finished"]) == ("eval", True)
    assert record["final"]["metrics"]["accuracy"] == accuracy


def test_evaluate_without_folder_tests_the_model_as_it_is(make, record_of, capsys):
    make().evaluate()
    assert "no weights are loaded" in capsys.readouterr().out
    assert record_of()["final"]["model_dir"] is None


def test_a_test_of_the_trainers_own_is_recorded_by_what_it_returns(make, record_of):
    trainer = make(TEST__FINAL_MODEL="best_val")
    trainer.test = lambda split=None: 12.5
    trainer.train()
    final = {"split": "test", "epoch": 1, "model_dir": None, "metrics": {"accuracy": 12.5}}
    assert record_of()["final"] == {**final, "images_per_second": None}  # unknown: the engine did not run it
    assert record_of()["epochs"][3]["val"] == {"accuracy": 12.5}


def test_a_model_that_is_not_there_is_named_with_those_that_are(make, tmp_path):
    make(TRAIN__CHECKPOINT_FREQ=2).train()
    holds = "holds epoch 2, epoch 4; check --model-dir and --load-epoch"
    with pytest.raises(FileNotFoundError, match=rf"Model not found at .*linear/model.pth.tar-9; .*/run/linear {holds}"):
        make("eval").evaluate(str(tmp_path / "run"), epoch=9)
    with pytest.raises(FileNotFoundError, match=rf"model-best.pth.tar; .*/run/linear {holds}"):
        make("eval").evaluate(str(tmp_path / "run"))
    with pytest.raises(FileNotFoundError, match="/nowhere/linear holds no model"):
        make("eval").evaluate(str(tmp_path / "nowhere"), epoch=4)


def test_weights_of_another_model_are_refused_with_both_shapes(make, tmp_path):
    make().train()
    trainer = make("eval")
    trainer.model[2] = torch.nn.Linear(100, 3)
    shapes = r"2.weight is \[3, 192\] in the file and \[3, 100\] here"
    with pytest.raises(RuntimeError, match=f"does not fit this model, .*backbone, context length .*: {shapes}"):
        trainer.evaluate(str(tmp_path / "run"), epoch=4)


def test_a_trainer_with_a_train_of_its_own_still_records_and_resumes(make, toys, tmp_path, record_of, same, killed):
    """In CLIPFit the trainer calls the hooks itself."""

    class OwnLoop(toys.LinearX):
        def train(self):
            self.before_train()
            for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
                self.before_epoch()
                self.run_epoch()
                self.after_epoch()
            self.after_train()

    def build(output):
        torch.manual_seed(0)
        return OwnLoop(toys.toy_cfg(tmp_path / "pictures", tmp_path / output))

    whole = build("whole")
    whole.train()
    assert [row["epoch"] for row in record_of("whole")["epochs"]] == [1, 2, 3, 4]
    assert record_of("whole")["finished"]
    killed(build("cut"), 4)
    again = build("cut")
    again.train()
    assert again.steps == 9


def test_a_trainer_with_a_loop_of_its_own_resumes_at_the_beginning_of_an_epoch(make, toys, tmp_path, killed, same):
    """Its `run_epoch` is Dassl's, without `training_steps`; generators are set back once, not in each epoch."""

    class OwnEpoch(toys.LinearX):
        def run_epoch(self):
            self.set_model_mode("train")
            self.num_batches = len(self.train_loader_x)
            for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020
                self.forward_backward(batch)

    def build(output):
        torch.manual_seed(0)
        return OwnEpoch(toys.toy_cfg(tmp_path / "pictures", tmp_path / output))

    whole, cut, again = build("whole"), build("cut"), build("cut")
    toys.set_random_seed(3)
    whole.train()
    toys.set_random_seed(3)
    killed(cut, 4)  # in the second epoch
    toys.set_random_seed(99)
    again.train()
    assert again.steps == 9
    same(dict(whole.model.state_dict()), dict(again.model.state_dict()))


def test_batches_go_to_a_gpu_without_waiting_for_it(make):
    copies = []

    class Recorded:
        def to(self, device, non_blocking=False):
            copies.append((device.type, non_blocking))

    batch = {"img": Recorded(), "label": Recorded(), "domain": Recorded()}
    trainers = make(), make("pair", TRAINER__NAME="LinearXU")
    for device, waits in (("cuda", False), ("mps", True), ("cpu", True)):
        for trainer in trainers:
            trainer.device = torch.device(device)
        trainers[0].parse_batch_train(batch)
        trainers[0].parse_batch_test(batch)
        trainers[1].parse_batch_train(batch, batch)
        assert copies == [(device, not waits)] * 8
        copies.clear()


def test_batches_of_a_trainer(make):
    trainer = make()
    batch = {"img": torch.zeros(2, 3, 8, 8), "label": torch.tensor([0, 1]), "domain": torch.tensor([0, 0])}
    assert [len(part) for part in trainer.parse_batch_train(batch)] == [2, 2, 2]
    assert len(trainer.parse_batch_test(batch)) == 2
    pair = make("pair", TRAINER__NAME="LinearXU")
    image, label, unlabelled = pair.parse_batch_train(batch, {"img": torch.ones(3, 3, 8, 8)})
    assert (len(image), len(label), len(unlabelled)) == (2, 2, 3)


@pytest.mark.parametrize(("count", "steps"), [("train_x", 3), ("train_u", 2), ("smaller_one", 2)])
def test_two_loaders_count_as_told(make, count, steps):
    trainer = make(
        TRAINER__NAME="LinearXU", TRAIN__COUNT_ITER=count, OPTIM__MAX_EPOCH=1, DATALOADER__TRAIN_U__BATCH_SIZE=6
    )
    trainer.train()
    assert trainer.steps == trainer.num_batches == steps


def test_two_loaders_errors(make):
    with pytest.raises(ValueError, match=r"COUNT_ITER must be one of .*smaller_one.*, got 'both'"):
        make(TRAINER__NAME="LinearXU", TRAIN__COUNT_ITER="both").train()
    trainer = make(TRAINER__NAME="LinearXU")
    trainer.train_loader_u = None
    with pytest.raises(RuntimeError, match="LinearXU needs unlabelled images, but the data set has no train_u"):
        trainer.train()


def test_the_default_network_trains(toys, pictures, tmp_path):
    """`SimpleTrainer.build_model`, with a backbone and a head by name."""
    from dassl.modeling import BACKBONE_REGISTRY

    class Flat(torch.nn.Flatten):
        out_features = 192

    def flat_backbone(pretrained):
        return Flat()

    BACKBONE_REGISTRY.register(flat_backbone, force=True)

    class Default(TrainerX):
        def forward_backward(self, batch):
            image, label, _ = self.parse_batch_train(batch)
            loss = torch.nn.functional.cross_entropy(self.model(image), label)
            self.model_backward_and_update(loss)
            return {"loss": loss}

    head = {"MODEL__HEAD__NAME": "mlp", "MODEL__HEAD__HIDDEN_LAYERS": (8,)}
    cfg = toys.toy_cfg(pictures, tmp_path / "run", MODEL__BACKBONE__NAME="flat_backbone", OPTIM__MAX_EPOCH=1, **head)
    trainer = Default(cfg)
    assert trainer.model.fdim == 8
    logits, features = trainer.model(torch.zeros(2, 3, 8, 8), return_feature=True)
    assert (logits.shape, features.shape) == ((2, 3), (2, 8))
    before = trainer.model.classifier.weight.clone()
    trainer.train()
    assert not torch.equal(trainer.model.classifier.weight, before)


def test_the_base_classes_say_what_is_missing():
    assert TRAINER_REGISTRY.registered_names()
    for call in (
        lambda t: t.run_epoch(),
        lambda t: t.test(),
        lambda t: t.forward_backward({}),
        lambda t: t.parse_batch_train({}),
        lambda t: t.parse_batch_test({}),
        lambda t: t.model_inference(None),
    ):
        with pytest.raises(NotImplementedError):
            call(TrainerBase())
    assert issubclass(TrainerX, SimpleTrainer)
