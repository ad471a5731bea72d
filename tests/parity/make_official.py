"""Make the golden numbers in ``official/`` with the official trainers; ``official/README.md`` says how to call it.

The official code is imported from clones, unmodified, and run on the CPU in float64. What it needs beside itself is
stood in for here: Dassl's registry; the methods of its trainer that take a step, its optimisers and its schedulers, all
read from the copy in ProGrad's repository; and OpenAI's download, which gives our random CLIP.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from support.official import (
    BASE,
    CASES,
    EPOCHS,
    FOLDER,
    LABELS,
    NEW,
    Case,
    clip,
    images,
    labels,
    make,
    start_value,
    summary,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn.functional import normalize

CLONES = Path(os.environ.get("OFFICIAL", ""))
DASSL = CLONES / "prograd" / "Dassl.ProGrad.pytorch" / "dassl"
STEPS = {
    "register_model", "get_model_names", "model_zero_grad", "model_backward", "model_update",
    "model_backward_and_update", "prograd_backward_and_update", "update_lr", "detect_anomaly",
}  # fmt: skip
"""Methods of Dassl's trainer that a step calls."""
DATASETS = {
    "caltech101": "Caltech101", "oxford_pets": "OxfordPets", "stanford_cars": "StanfordCars", "ucf101": "UCF101",
    "dtd": "DescribableTextures",
}  # fmt: skip
WARM_UP_RATE, ADAM_EPS = 1e-5, 1e-3


@dataclass(frozen=True)
class Official:
    """Where a method's official trainer is.

    Attributes:
        folder: below the clones.
        module: in ``trainers``.
        trainer: its class.
        commit: which the numbers were made with.
        parameters: pairs of a pattern of the official parameters' names and ours.
    """

    folder: str
    module: str
    trainer: str
    commit: str
    parameters: Sequence[tuple[str, str]]


CONTEXT = (r"prompt_learner\.ctx", "context")
_DEPT = (
    (r"prompt_learner\.ctx", "base.context"),
    (r"film_lp_text\.scale", "scale.text"), (r"film_lp_text\.bias", "shift.text"),
    (r"film_lp_img\.scale", "scale.image"), (r"film_lp_img\.bias", "shift.image"),
    (r"linear_probe_proj\.(.*)", r"linear.\1"),
)  # fmt: skip
OFFICIAL = {
    "coop": Official("coop", "coop", "CoOp", "KaiyangZhou/CoOp ff61507", (CONTEXT,)),
    "cocoop": Official(
        "coop", "cocoop", "CoCoOp", "KaiyangZhou/CoOp ff61507",
        (CONTEXT, (r"prompt_learner\.meta_net\.linear1\.(.*)", r"network.0.\1"),
         (r"prompt_learner\.meta_net\.linear2\.(.*)", r"network.2.\1")),
    ),
    "kgcoop": Official("kgcoop/KgCoOp", "kgcoop", "KgCoOp", "htyao89/KgCoOp c43ccc3", (CONTEXT,)),
    "prograd": Official("prograd/ProGrad.public", "prograd", "ProGrad", "BeierZhu/Prompt-align 1b76203", (CONTEXT,)),
    "tcp": Official(
        "tcp", "tcp", "TCP", "htyao89/Textual-based_Class-aware_prompt_tuning bd97bec",
        (CONTEXT, (r"prompt_learner\.meta_net\.linear1\.(.*)", r"inner.\1"),
         (r"prompt_learner\.meta_net\.linear2\.(.*)", r"outer.\1")),
    ),
    "maple": Official(
        "maple", "maple", "MaPLe", "muzairkhattak/multimodal-prompt-learning 69bce21",
        (CONTEXT, (r"prompt_learner\.proj\.(.*)", r"project.\1"),
         (r"prompt_learner\.compound_prompts_text\.(.*)", r"deep.\1"),
         (r"prompt_learner\.compound_prompt_projections\.(.*)", r"project_deep.\1")),
    ),
    "promptsrc": Official(
        "promptsrc", "promptsrc", "PromptSRC", "muzairkhattak/PromptSRC bb95c77",
        (CONTEXT, (r"image_encoder\.VPT", "image.0"),
         (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"image.\1"),
         (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"text.\1")),
    ),
    "dept-coop": Official("dept", "elp_coop", "ExtrasLinearProbeCoOp", "Koorye/DePT d4ff416", _DEPT),
    "dept-kgcoop": Official("dept", "elp_kgcoop", "ExtrasLinearProbeKgCoOp", "Koorye/DePT d4ff416", _DEPT),
}  # fmt: skip


def stand_in(name: str, **content: Any) -> None:
    """Put a module with this content where an import will look for it."""
    module = types.ModuleType(name)
    module.__dict__.update(content)
    module.__path__ = []
    sys.modules[name] = module


def same(self: Any, *_: Any, **__: Any) -> Any:
    """Return the object itself, in place of a copy on a GPU or in another precision."""
    return self


def prepare(state: dict[str, Tensor]) -> None:
    """Stand in for Dassl, CUDA, float16 and the download."""
    for kind in (Tensor, nn.Module):
        kind.cuda = kind.half = same  # type: ignore[method-assign, assignment]
    nn.Module.float = same  # type: ignore[method-assign, assignment]
    scheduler = torch.optim.lr_scheduler.LRScheduler
    init = scheduler.__init__
    scheduler.__init__ = lambda self, of, last=-1, *_: init(self, of, last)  # type: ignore[method-assign]  # `verbose` has gone
    registry = SimpleNamespace(register=lambda: lambda kind: kind)
    trainer = dassl_trainer()
    version = SimpleNamespace(parse=lambda text: tuple(int(n) for n in re.findall(r"\d+", text)[:3]))
    stand_in("dassl")
    stand_in("dassl.engine", TRAINER_REGISTRY=registry, TrainerX=trainer)
    stand_in("dassl.engine.trainer", TrainerX=trainer, MetricMeter=None, AverageMeter=None, SummaryWriter=None)
    stand_in("dassl.metrics", compute_accuracy=lambda logits, truth: [(logits.argmax(1) == truth).double().mean()])
    stand_in("dassl.utils", load_pretrained_weights=None, load_checkpoint=None)
    stand_in("pkg_resources", packaging=SimpleNamespace(version=version))
    for name in ("plotnine", "utils"):
        stand_in(name)
    stand_in("utils.logger", print=print)
    stand_in("dassl.optim")
    sys.modules["dassl.optim"].__path__ = [str(DASSL / "optim")]
    for name in ("radam", "optimizer", "lr_scheduler"):
        importlib.import_module(f"dassl.optim.{name}")
    sys.modules["dassl.optim"].build_optimizer = sys.modules["dassl.optim.optimizer"].build_optimizer  # type: ignore[attr-defined]
    sys.modules["dassl.optim"].build_lr_scheduler = sys.modules["dassl.optim.lr_scheduler"].build_lr_scheduler  # type: ignore[attr-defined]
    archive = SimpleNamespace(state_dict=lambda: OrderedDict(state), eval=lambda: archive)
    torch.jit.load = lambda *_, **__: archive  # type: ignore[assignment]


def dassl_trainer() -> type[Any]:
    """Return a class with those methods of Dassl's trainer that a step calls, and no more."""
    tree = ast.parse((DASSL / "engine" / "trainer.py").read_text(encoding="utf-8"))
    (base,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainerBase"]
    base.name, base.bases = "TrainerX", []
    base.body = [node for node in base.body if isinstance(node, ast.FunctionDef) and node.name in STEPS]
    assert {node.name for node in base.body} == STEPS
    as_list = lambda x: x if isinstance(x, list | tuple) else [x]  # noqa: E731
    found: dict[str, Any] = {"torch": torch, "nn": nn, "OrderedDict": OrderedDict, "tolist_if_not": as_list}
    exec(compile(ast.Module([base], []), "trainer.py", "exec"), found)  # noqa: S102
    kind: type[Any] = found["TrainerX"]
    return kind


def import_trainer(official: Official) -> type[Any]:
    """Import a trainer; whichever copies of OpenAI's CLIP it uses compute LayerNorm in float64 too."""
    folder = CLONES / official.folder
    sys.path.insert(0, str(folder))
    stand_in("trainers")
    sys.modules["trainers"].__path__ = [str(folder / "trainers")]
    trainer: type[Any] = getattr(importlib.import_module(f"trainers.{official.module}"), official.trainer)
    for module in [m for m in sys.modules.values() if str(CLONES) in (getattr(m, "__file__", None) or "")]:
        if isinstance(norm := getattr(module, "LayerNorm", None), type) and norm is not nn.LayerNorm:
            norm.forward = nn.LayerNorm.forward  # type: ignore[method-assign]
        if hasattr(module, "_download") and hasattr(module, "build_model"):
            module._download = lambda *_: ""
    return trainer


def settings(case: Case) -> SimpleNamespace:
    """Return the configuration: Dassl's defaults, the published values, and what the case changes."""
    space, plan = SimpleNamespace, case.schedule
    both = {"CTX_INIT": "a photo of a", "PREC": "fp32"}
    trainer = space(
        COOP=space(N_CTX=16, CSC=False, CTX_INIT="", PREC="fp32", CLASS_TOKEN_POSITION="end", W=1.0, ALPHA=1.0),  # noqa: S106
        COCOOP=space(N_CTX=4, **both),
        MAPLE=space(N_CTX=2, PROMPT_DEPTH=3, **both),
        PROMPTSRC=space(
            N_CTX_VISION=4, N_CTX_TEXT=4, PROMPT_DEPTH_VISION=3, PROMPT_DEPTH_TEXT=3, TEXT_LOSS_WEIGHT=25,
            IMAGE_LOSS_WEIGHT=10, GPA_MEAN=3, GPA_STD=1, **both,
        ),
        LINEAR_PROBE=space(TYPE="linear", WEIGHT=0.7, TEST_TIME_FUSION=True),
        FILM=space(LINEAR_PROBE=True),
        NAMES_TO_UPDATE=["prompt_learner", "linear_probe", "film"],
    )  # fmt: skip
    given: dict[str, dict[str, Any]] = {
        "coop": {"CTX_INIT": "a photo of a"},
        "coop-middle": {"N_CTX": 6, "CLASS_TOKEN_POSITION": "middle"},
        "kgcoop": {"CTX_INIT": True, "N_CTX": 4, "W": 8.0},
        "prograd": {"CTX_INIT": True},
        "tcp": {"CTX_INIT": False, "N_CTX": 4},
        "dept-kgcoop": {"CTX_INIT": "a photo of a", "N_CTX": 4, "W": 2.0},
    }
    vars(trainer.COOP).update(given.get(case.name, given.get(case.method, {})))
    optim = space(
        NAME=plan.optimiser, LR=plan.learning_rate, WEIGHT_DECAY=5e-4, MOMENTUM=0.9, SGD_DAMPNING=0, SGD_NESTEROV=False,
        RMSPROP_ALPHA=0.99, ADAM_BETA1=0.9, ADAM_BETA2=0.999, STAGED_LR=False, NEW_LAYERS=(), BASE_LR_MULT=0.1,
        LR_SCHEDULER="cosine", STEPSIZE=(-1,), GAMMA=0.1, MAX_EPOCH=EPOCHS, WARMUP_EPOCH=1, WARMUP_TYPE="constant",
        WARMUP_CONS_LR=WARM_UP_RATE, WARMUP_MIN_LR=WARM_UP_RATE, WARMUP_RECOUNT=True,
    )  # fmt: skip
    if case.method == "dept":
        vars(optim).update(LR_EXP=6.5, STAGED_LR=True, NEW_LAYERS=["linear_probe", "film"], BASE_LR_MULT=1.0)
    return space(
        OPTIM=optim,
        TRAINER=trainer,
        MODEL=space(BACKBONE=space(NAME="ViT-B/16"), INIT_WEIGHTS=""),
        INPUT=space(SIZE=(32, 32)),
        DATASET=space(NAME=DATASETS[case.dataset], SUBSAMPLE_CLASSES="base"),
        LOSS=space(NAME="prograd", T=1.0, LAMBDA=1.0),
        TRAIN=space(PRINT_FREQ=1),
    )


def build(kind: type[Any], case: Case, names: Sequence[str], part: str) -> Any:
    """Return an official trainer for these classes."""
    trainer = kind.__new__(kind)
    trainer._models, trainer._optims, trainer._scheds = OrderedDict(), OrderedDict(), OrderedDict()
    trainer.cfg, trainer.device = settings(case), torch.device("cpu")
    trainer.cfg.DATASET.SUBSAMPLE_CLASSES = part
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(names)))
    trainer.build_model()
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 1, 0, 0
    if case.method == "tcp":  # their README has Dassl's file edited
        for group in trainer.optim.param_groups:
            group["eps"] = ADAM_EPS
    if case.method == "dept":  # our one difference on purpose: features of one typical length
        for encoder in (trainer.model.text_encoder, trainer.model.image_encoder):
            encoder.forward = lengthened(encoder.forward)
    return trainer


def lengthened(forward: Any) -> Any:
    """Return the function with rows of length 10 (`DePTConfig.feature_length`)."""
    return lambda *given, **named: 10 * normalize(forward(*given, **named), dim=-1)


def parameters(official: Official, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield our name and the official parameter of all that is trained."""
    for name, parameter in model.named_parameters():
        for pattern, our in official.parameters:
            if found := re.fullmatch(pattern, name):
                text = found.expand(our)
                if text.startswith("text.") and "VPT" in name:  # ours counts the deeper sets from 0
                    text = f"text.{int(text[5:]) - 1}"
                yield text, parameter


def answers(trainer: Any, tests: Tensor) -> list[list[float]]:
    """Return logits of the test images."""
    trainer.model.eval()
    with torch.no_grad():
        found = trainer.model(tests)
    trainer.model.train()
    logits: list[list[float]] = (found[0] if isinstance(found, tuple) else found).tolist()
    return logits


def solve(case: Case) -> dict[str, Any]:
    """Return the numbers of a case by the official code."""
    backbone = clip(case.clip)
    pixels, tests = images("train", len(LABELS)), images("test", 3)
    features = backbone.encode_images(pixels)
    handcrafted = backbone.embed_names(BASE, make(case, backbone, features)[1])
    truth = labels(case, backbone, features, handcrafted)
    official = OFFICIAL[case.name if case.method == "dept" else case.method]
    prepare(backbone.model.state_dict())
    kind = import_trainer(official)
    trainer = build(kind, case, BASE, "base")
    learned = dict(parameters(official, trainer.model))
    numbers: dict[str, Any] = {"start": {name: summary(p) for name, p in learned.items() if name in case.words}}
    with torch.no_grad():
        for name, parameter in learned.items():
            if name not in case.words:
                parameter.copy_(start_value(case, name, tuple(parameter.shape)))
    numbers["logits at the start"] = answers(trainer, tests)
    losses, rates = [], []
    for epoch in range(EPOCHS):
        rates.append([group["lr"] for group in trainer.optim.param_groups])
        found = trainer.forward_backward({"img": pixels, "label": truth})
        losses.append([found["xe_loss"], found["kl_loss"]] if "xe_loss" in found else [found["loss"]])
        if epoch == 0:
            numbers["gradients"] = {name: summary(p.grad) for name, p in learned.items() if p.grad is not None}
    other = build(kind, case, NEW, "new")
    fixed = ("token_prefix", "token_suffix", "linear_probe_proj", "fixed_embeddings")
    state = {k: v for k, v in trainer.model.state_dict().items() if not any(name in k for name in fixed)}
    other.model.load_state_dict(state, strict=False)
    return numbers | {
        "losses": losses,
        "rates": rates,
        "parameters": {name: summary(p) for name, p in parameters(official, trainer.model)},
        "logits": answers(trainer, tests),
        "logits of new classes": answers(other, tests),
    }


def main(names: Sequence[str]) -> None:
    """Write the golden files of some cases, each in a process of its own: official modules have the same names."""
    if not DASSL.is_dir():
        sys.exit("OFFICIAL: expected a folder with the clones that official/README.md lists")
    if len(names) != 1:
        for name in names or CASES:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    case = CASES[names[0]]
    torch.set_default_dtype(torch.float64)
    with contextlib.redirect_stdout(io.StringIO()):
        numbers = solve(case)
    commit = OFFICIAL[case.name if case.method == "dept" else case.method].commit
    content = {"code": commit, "torch": torch.__version__, "numbers": numbers}
    (FOLDER / f"{case.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{case.name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
