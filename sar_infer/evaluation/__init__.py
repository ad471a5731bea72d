"""Answers compared with the truth, findings about names and photos, and pages that show both.

A page NAME is ``NAME.html`` in ``shell.html``, ``NAME.css`` and ``NAME.js``, which draws its data. ``base.css``, which
the server's pages share, and ``base.js`` come first, then ``charts.css`` and ``charts.js`` where figures are drawn.
"""

from sar_infer.evaluation.evaluation import Evaluation
from sar_infer.evaluation.findings import FindingWarning

__all__ = ["Evaluation", "FindingWarning"]
