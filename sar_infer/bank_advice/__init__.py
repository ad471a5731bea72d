"""Advice on class names before a bank takes them: rules on text and tokens, and rules on embeddings.

A ``Linter`` runs them all, for one bundle and one bank; each rule returns findings and changes nothing.
"""

from __future__ import annotations

from sar_infer.bank_advice.finding import Finding, Severity, worst_first
from sar_infer.bank_advice.linter import Linter
from sar_infer.bank_advice.photo_rules import photo_findings
from sar_infer.bank_advice.text_rules import text_findings

__all__ = ["Finding", "Linter", "Severity", "photo_findings", "text_findings", "worst_first"]
