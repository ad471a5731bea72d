"""The recipes that made the shipped backbones `sar-mini` and `sar-mini-vit`; not part of the wheel."""
