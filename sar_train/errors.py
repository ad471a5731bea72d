"""Every error that `sar_train` raises on purpose; the message is one line that can be shown to a user as it is.

::

    SarTrainError
    ├── ConfigError      an option or a configuration file: unknown, out of range, contradictory
    ├── DataError        photos, class folders, split files, feature files
    ├── BackboneError    an unknown model, or weights that cannot be loaded or do not fit
    ├── ClassNameError   a class name that does not fit the text tower
    ├── RunError         a run folder or checkpoint that cannot be used
    └── ExportError      an export that failed its own checks
"""

from __future__ import annotations


class SarTrainError(Exception):
    """Base of all errors below."""


class ConfigError(SarTrainError, ValueError):
    """An option or a configuration file cannot be used; the message lists every problem found."""


class DataError(SarTrainError):
    """Photos, class folders, split files or feature files cannot be used."""


class BackboneError(SarTrainError):
    """The backbone is unknown, or its weights cannot be loaded or do not fit."""


class ClassNameError(SarTrainError):
    """A class name does not fit the text tower."""


class RunError(SarTrainError):
    """A run folder or a checkpoint cannot be used."""


class DivergedError(RunError):
    """Training gave numbers that are not finite; no run is left."""


class ExportError(SarTrainError):
    """An export did not pass its own checks; nothing was written."""
