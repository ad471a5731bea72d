"""Run a program in which `sar_train.train` learns from the same photos with the same options once.

    python tests/examples/once.py KEPT SCRIPT [ARGUMENT...]

KEPT is a folder with what was learned so far; graphs are those that `support.traces` shares. The script ``-`` is
read from standard input. A later call with equal arguments gets a copy of the run's folder and of what `train`
returned, in place of the same minute again. What no script asks for is left out: random crops of photos, and another
training for each half of the classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import runpy
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

BRIEF = {"views": 1, "quick": True}


def once(train: Callable[..., Any], kept: Path) -> Callable[..., Any]:
    """Return ``train``, which looks into a folder first and keeps there what it has learned."""

    def learn(photos: Path | str, *, out: Path | str, progress: Any = None, **options: Any) -> Any:
        asked = repr((str(Path(photos).resolve()), sorted(options.items())))
        place = kept / hashlib.sha256(asked.encode()).hexdigest()
        if not place.is_dir():
            run = train(photos, out=out, progress=progress, **BRIEF | options)
            shutil.copytree(out, place / "run")
            (place / "returned.pickle").write_bytes(pickle.dumps(run))
            return run
        shutil.copytree(place / "run", out)
        return dataclasses.replace(pickle.loads((place / "returned.pickle").read_bytes()), path=Path(out))  # noqa: S301

    return learn


if __name__ == "__main__":
    _, folder, script, *arguments = sys.argv
    sys.path[0] = "" if script == "-" else str(Path(script).parent)  # as it is without this file

    from support.traces import kept_graphs, remembered

    import sar_train
    from sar_train.export import graph

    graph.translate = partial(remembered, kept_graphs())
    sar_train.train = once(sar_train.train, Path(folder))  # type: ignore[assignment]
    sys.argv = [script, *arguments]
    if script == "-":
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        runpy.run_path(script, run_name="__main__")
