"""Train or evaluate one method on one data set: flags → configuration → trainer.

Later wins: defaults < --dataset-config-file < --config-file < flags you type < trailing KEY VALUE pairs.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from functools import partial

import torch
from yacs.config import CfgNode as CN

import trainers  # noqa: F401  registers the trainers
from dassl import distributed
from dassl.config import get_cfg_default, merge_file, merge_opts
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.engine.run_lock import run_lock
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from trainers.config import extend_cfg

EXAMPLES = """\
examples:
  train CoOp on the base classes of the embedded benchmark, 16 shots, seed 1:
    python train.py --root data --seed 1 --trainer CoOp --output-dir output/try \\
        --dataset-config-file configs/datasets/shapes.yaml --config-file configs/trainers/CoOp/mini_vit8_ep20.yaml \\
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
  see first what that would do and how long it would take; writes nothing:
    python train.py --dry-run ... --output-dir output/try DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
  test it on the new classes:
    python train.py ... --output-dir output/try_new --eval-only --model-dir output/try --load-epoch 20 \\
        DATASET.SUBSAMPLE_CLASSES new

On N GPUs: torchrun --standalone --nproc_per_node N train.py ...; the batch size stays that of all together.
An interrupted run continues when the same command is given again. Flags come before KEY VALUE pairs.
Methods: {trainers}.
"""

FLAGS = {  # flag -> config key
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
}


def setup_cfg(args: argparse.Namespace) -> CN:
    """Merge defaults, files, flags and opts into one frozen configuration."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            merge_file(cfg, path)
    for flag, key in FLAGS.items():
        value = getattr(args, flag)
        if value is not None:  # a flag that was not typed never overrides a file
            *nodes, leaf = key.split(".")
            node = cfg
            for name in nodes:
                node = node[name]
            node[leaf] = value
    late = [item for item in args.opts if item.startswith("--")]
    if late:
        raise ValueError(f"{late[0]} stands behind a KEY VALUE pair; move it to the front, flags come first.")
    merge_opts(cfg, args.opts)
    cfg.freeze()
    return cfg


def setup_other(args: argparse.Namespace, path: str) -> CN:
    """The configuration of another config file on the same data, without other flags and KEY VALUE pairs."""
    data = {"dataset_config_file": args.dataset_config_file, "config_file": path, "opts": []}
    return setup_cfg(argparse.Namespace(**dict.fromkeys(FLAGS), **data))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    names = ", ".join(TRAINER_REGISTRY.registered_names())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES.format(trainers=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--root", help="folder that holds the data sets")
    add("--output-dir", help="folder of this run: log.txt, metrics.json, checkpoints")
    add("--resume", help="folder to resume from; default: the output folder itself")
    add("--seed", type=int, help="0 or more; decides few-shot samples, initial values and the order of images")
    add("--source-domains", nargs="+", help="source domains of data sets that have several")
    add("--target-domains", nargs="+", help="target domains of data sets that have several")
    add("--transforms", nargs="+", help="training transforms, e.g. random_resized_crop random_flip normalize")
    add("--config-file", default="", help="which numbers: configs/trainers/<Trainer>/*.yaml")
    add("--dataset-config-file", default="", help="which data: configs/datasets/*.yaml")
    add("--trainer", help="which method")
    add("--backbone", help="CLIP model: a name such as ViT-B/16, or a file of weights")
    add("--head", help="head of dassl's own networks; no prompt method uses it")
    add("--eval-only", action="store_true", help="only test; trained methods need --model-dir")
    add("--model-dir", default="", help="run folder to take the trained tensors from")
    add("--load-epoch", type=int, help="epoch to load with --eval-only; default: the best validation epoch")
    add("--no-train", action="store_true", help="build everything, then stop")
    add(
        "--dry-run",
        action="store_true",
        help="say what would be done, how long it takes and what differs from the "
        "published recipe, and write nothing; exit status 1 where the run could not start",
    )
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="any configuration keys, e.g. OPTIM.MAX_EPOCH 50")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    cfg = setup_cfg(args)
    if not args.eval_only and (args.model_dir or args.load_epoch is not None):
        raise ValueError("--model-dir and --load-epoch say what to test; add --eval-only, or leave them out to train.")
    if not cfg.TRAINER.NAME or not cfg.DATASET.NAME:
        raise ValueError("A run needs a method (--trainer) and a data set (--dataset-config-file); see --help.")
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    elif distributed.world_size() > 1:  # no seed, but the same for all
        set_random_seed(distributed.gather_plain(torch.initial_seed() % 2**32)[0])
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    if args.dry_run:
        from tools.dry_run import dry_run  # here: no other run needs what it imports

        dry_run(args, cfg, partial(setup_other, args))
        return
    with run_lock(cfg.OUTPUT_DIR):  # before the log is opened and the data are read
        run_trainer(args, cfg)


def run_trainer(args: argparse.Namespace, cfg: CN) -> None:
    """Log what is asked for, build the trainer, train or test."""
    if distributed.is_main():
        setup_logger(cfg.OUTPUT_DIR)
    print("** Arguments **")
    for name, value in sorted(vars(args).items()):
        print(f"{name}: {value}")
    print(f"** Config **\n{cfg}")
    print(f"** Environment **\n{collect_env_info()}\n")
    if distributed.world_size() > 1:
        print(f"Training and evaluation are divided among {distributed.world_size()} processes")

    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.evaluate(args.model_dir, epoch=args.load_epoch)
    elif not args.no_train:
        trainer.train()


def run(argv: list[str] | None = None) -> int:
    """Run `main`; a failure ends with one sentence on the terminal and the whole traceback in log.txt.

    Of several processes the first that fails gives the sentence and the traceback, and all end.
    """
    terminal = sys.stdout
    try:
        distributed.start()
        terminal = sys.stdout
        main(parse_args(argv))
    except (ValueError, TypeError, KeyError, AssertionError, OSError, RuntimeError, FloatingPointError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        logged = sys.stdout is not terminal or distributed.world_size() > 1
        return distributed.fail(f"Error: {message or repr(error)}", traceback.format_exc() if logged else "")
    return 0


if __name__ == "__main__":
    sys.exit(run())
