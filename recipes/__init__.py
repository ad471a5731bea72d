"""How the shipped backbones `sar-mini` and `sar-mini-vit` were made; not part of the wheel."""
