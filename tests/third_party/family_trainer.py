"""A trainer as projects of the CoOp family write them: only names that their public interface has.

Prompt learner with class buffers, text encoder on the raw CLIP modules (sequence first), weights through
`clip._MODELS` / `clip._download` / `torch.jit.load`, one registered model, own `load_model`.
"""

import os.path as osp

import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

tokenizer = Tokenizer()


def clip_on_cpu(cfg):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    try:
        archive = torch.jit.load(path, map_location="cpu").eval()
        weights = None
    except RuntimeError:
        weights = torch.load(path, map_location="cpu")
    return clip.build_model(weights or archive.state_dict())


class PromptText(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.transformer = model.transformer
        self.positional_embedding = model.positional_embedding
        self.ln_final = model.ln_final
        self.text_projection = model.text_projection
        self.dtype = model.dtype

    def forward(self, prompts, ids):
        hidden = (prompts + self.positional_embedding.type(self.dtype)).permute(1, 0, 2)
        hidden = self.ln_final(self.transformer(hidden).permute(1, 0, 2)).type(self.dtype)
        return hidden[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection


class Prompts(nn.Module):
    def __init__(self, cfg, names, model):
        super().__init__()
        assert cfg.INPUT.SIZE[0] == model.visual.input_resolution
        n, width = cfg.TRAINER.FAMILY.N_CTX, model.ln_final.weight.shape[0]
        names = [name.replace("_", " ") for name in names]
        self.name_lens = [len(tokenizer.encode(name)) for name in names]
        self.ctx = nn.Parameter(nn.init.normal_(torch.empty(n, width, dtype=model.dtype), std=0.02))
        self.ids = torch.cat([clip.tokenize(" ".join(["X"] * n) + " " + name + ".") for name in names])
        with torch.no_grad():
            table = model.token_embedding(self.ids).type(model.dtype)
        self.register_buffer("token_prefix", table[:, :1])
        self.register_buffer("token_suffix", table[:, 1 + n :])

    def forward(self):
        ctx = self.ctx.unsqueeze(0).expand(len(self.ids), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class Whole(nn.Module):
    def __init__(self, cfg, names, model):
        super().__init__()
        self.prompt_learner = Prompts(cfg, names, model)
        self.image_encoder = model.visual
        self.text_encoder = PromptText(model)
        self.logit_scale = model.logit_scale
        self.dtype = model.dtype

    def forward(self, image):
        v = self.image_encoder(image.type(self.dtype))
        t = self.text_encoder(self.prompt_learner(), self.prompt_learner.ids)
        v, t = v / v.norm(dim=-1, keepdim=True), t / t.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * v @ t.t()


@TRAINER_REGISTRY.register()
class FamilyTrainer(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.FAMILY.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        model = clip_on_cpu(cfg)
        if cfg.TRAINER.FAMILY.PREC in ["fp32", "amp"]:
            model.float()
        self.model = Whole(cfg, self.dm.dataset.classnames, model)
        for name, parameter in self.model.named_parameters():
            if "prompt_learner" not in name:
                parameter.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.scaler = GradScaler() if cfg.TRAINER.FAMILY.PREC == "amp" else None

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        if self.scaler is not None:
            with autocast():
                loss = F.cross_entropy(self.model(image), label)
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
            return {"loss": loss.item()}
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("No model directory, nothing to load")
            return
        for name in self.get_model_names():
            file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
            path = osp.join(directory, name, file)
            if not osp.exists(path):
                raise FileNotFoundError(f'No model at "{path}"')
            checkpoint = load_checkpoint(path)
            weights = checkpoint["state_dict"]
            for buffer in ("token_prefix", "token_suffix"):
                weights.pop(buffer, None)
            print(f"Loading {name} of epoch {checkpoint['epoch']} from {path}")
            self._models[name].load_state_dict(weights, strict=False)
