"""Make the table of nouns that ships from WordNet's own files, such as those of Debian's ``wordnet-base``.

    python scripts/wordnet_table.py /usr/share/wordnet sar_train/assets/wordnet_nouns.tsv.xz

`sar_train.novel_names.wordnet` says what is in it.
"""

from __future__ import annotations

import lzma
import sys
from collections.abc import Iterable
from pathlib import Path

from sar_train.novel_names.wordnet import Synset


def parse(noun_data: Iterable[str], ranks: dict[tuple[str, int], int]) -> Iterable[Synset]:
    """Yield the synsets of ``data.noun``; ranks are by lemma and offset, as `sense_ranks` gives them."""
    for line in noun_data:
        if line.startswith("  "):
            continue
        fields = line.split(" | ")[0].split()
        offset, count = int(fields[0]), int(fields[3], 16)
        words = fields[4 : 4 + 2 * count : 2]
        pointers = fields[5 + 2 * count :]
        kinds = [(pointers[i], int(pointers[i + 1])) for i in range(0, len(pointers) - 3, 4)]
        if any(kind == "@i" for kind, _ in kinds):
            continue
        lemmas = tuple((w.replace("_", " "), ranks.get((w.lower(), offset), 1)) for w in words)
        yield Synset(offset, lemmas, tuple(o for kind, o in kinds if kind == "@"))


def sense_ranks(noun_index: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the rank of each sense in ``index.noun`` by lemma and offset; 1 is the commonest."""
    ranks = {}
    for line in noun_index:
        if line.startswith("  "):
            continue
        fields = line.split()
        senses = fields[-int(fields[2]) :]
        ranks.update({(fields[0], int(offset)): rank for rank, offset in enumerate(senses, 1)})
    return ranks


def build(wordnet: Path, out: Path) -> None:
    """Write the table from WordNet's ``data.noun`` and ``index.noun``."""
    ranks = sense_ranks((wordnet / "index.noun").read_text().splitlines())
    synsets = list(parse((wordnet / "data.noun").read_text().splitlines(), ranks))
    offsets = {synset.offset for synset in synsets}
    rows = []
    for synset in synsets:
        lemmas = ",".join(name if rank == 1 else f"{name}:{rank}" for name, rank in synset.lemmas)
        rows.append(f"{synset.offset}\t{lemmas}\t{','.join(str(h) for h in synset.hypernyms if h in offsets)}\n")
    out.write_bytes(lzma.compress("".join(rows).encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
