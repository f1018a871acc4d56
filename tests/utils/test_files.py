"""Files are written atomically."""

import errno

import pytest

from semanticface.errors import SemanticFaceError
from semanticface.utils.files import atomic_open, atomic_path


def test_a_new_file_is_created_with_its_folders(tmp_path):
    target = tmp_path / "a" / "b.txt"
    with atomic_open(target) as file:
        file.write("grüße")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "grüße"
    assert [path.name for path in target.parent.iterdir()] == ["b.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_open(target, "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    (target / "stale").touch()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [path.name for path in target.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    target = tmp_path / "x.txt"
    with pytest.raises(SemanticFaceError, match=r"x\.txt.*No space left.*Free some space"), atomic_open(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_in_the_block_are_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_open(tmp_path / "x.txt"):
        (tmp_path / "missing").read_text()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SemanticFaceError, match="cannot write"), atomic_open(tmp_path / "file" / "x.txt"):
        pass
