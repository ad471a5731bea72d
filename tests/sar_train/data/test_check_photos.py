from pathlib import Path

from PIL import Image
from support.coop import link_photos
from support.hostile_jpegs import hidden_scans
from support.photos import write_photo

from sar_train.data.check_photos import even_sample, sizes, unreadable


def test_sizes(tmp_path: Path) -> None:
    link_photos(tmp_path, ["a/1.jpg", "b/1.jpg"])
    (tmp_path / "a/empty.jpg").write_bytes(b"")
    (tmp_path / "a/folder.jpg").mkdir()
    names = ["b/1.jpg", "a/empty.jpg", "a/none.jpg", "c/1.jpg", "a/folder.jpg"]
    found = sizes([str(tmp_path / name) for name in names])
    assert found == [(tmp_path / "b/1.jpg").stat().st_size, 0, None, None, None]


def test_even_sample() -> None:
    paths = list("0123456789")
    assert even_sample(paths, 20) == paths
    assert even_sample(paths, 4) == ["0", "2", "5", "7"]
    assert even_sample([], 4) == []


def test_unreadable(tmp_path: Path) -> None:
    paths = [
        write_photo(tmp_path / f"{i}.{form}", i, (90, 80)) for i, form in enumerate(("png", "jpg", "gif", "jpg", "png"))
    ]
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    paths[4].write_bytes(b"<html>not found</html>")
    Image.new("RGB", (4000, 2)).save(tmp_path / "thin.jpg")
    (tmp_path / "scans.jpg").write_bytes(hidden_scans(4000, 500))
    steps: list[int] = []
    more = [tmp_path / name for name in ("thin.jpg", "none.jpg", "scans.jpg")]
    found = unreadable([str(path) for path in (*paths, *more)], steps.append)
    assert [Path(path).name for path, _ in found] == ["3.jpg", "4.png", "thin.jpg", "none.jpg", "scans.jpg"]
    assert "too many scans" in found[-1][1]
    assert "truncated" in found[0][1].lower()
    assert all(reason and str(tmp_path) not in reason for _, reason in found)
    assert sum(steps) == 8
