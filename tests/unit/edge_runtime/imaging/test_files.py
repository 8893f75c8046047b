from pathlib import Path

from edge_runtime.imaging.files import images_in


def test_images_are_found_by_suffix_in_any_case_in_name_order_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "a/.x.jpg", ".h/y.jpg", "c.txt", "d.tiff"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == ["a/z.jpg", "b.PNG", "d.tiff"]


def test_a_folder_that_is_not_there_holds_no_images(tmp_path: Path) -> None:
    assert images_in(tmp_path / "nowhere") == []
