"""What is worth knowing of class names before a bank takes them: rules on text, tokens and embeddings."""

from __future__ import annotations

from sar_infer.lint.finding import Finding, Severity, worst_first
from sar_infer.lint.linter import Linter, lint
from sar_infer.lint.reference import reference_embedder

__all__ = ["Finding", "Linter", "Severity", "lint", "reference_embedder", "worst_first"]
