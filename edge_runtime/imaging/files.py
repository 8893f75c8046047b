"""Owns which files of a folder are images: by suffix in any case, hidden files and folders left out."""

from pathlib import Path

from edge_runtime.imaging.frames import IMAGE_SUFFIXES


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder and its subfolders, in name order; empty where there is no such folder."""
    return sorted(path for path in folder.rglob("*") if _is_image(path, folder))


def _is_image(path: Path, folder: Path) -> bool:
    """Whether a file is to be inspected: hidden files and folders are not, as in data sets."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()
