"""Hatchling hook: the wheel carries ``exports/mini/`` as ``sar_infer/_bundles/mini/``; an editable install does not.

An editable install finds the bundle in the checkout; copying it would make two that can differ.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleHook(BuildHookInterface[Any]):
    """Hook that adds the shipped bundle to a standard wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the bundle before hatchling builds; ``version`` is ``standard`` or ``editable``.

        Raises:
            FileNotFoundError: the checkout has no bundle to ship.
        """
        if self.target_name != "wheel" or version == "editable":
            return
        bundle = Path(self.root, "exports", "mini")
        if not (bundle / "manifest.json").is_file():
            raise FileNotFoundError(f"{bundle} holds no bundle: a wheel without it would not classify anything")
        build_data["force_include"][str(bundle)] = "sar_infer/_bundles/mini"
