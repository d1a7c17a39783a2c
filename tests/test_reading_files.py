import sys
from pathlib import Path

import pytest

from cxr.reading import find_images
from cxr.reading.files import looks_like_dicom

pytestmark = pytest.mark.filterwarnings("ignore:.* skipped:UserWarning")


def put(folder, *names, content=b"\xff\xd8\xff\xe0"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def tree(tmp_path):
    """A folder as archives leave it: images in two depths, and much that is none."""
    put(tmp_path, "b.png", "a.JPG", "sub/c.dcm", "sub/deep/d.tiff", "notes.txt", ".hidden.png", content=b"x")
    put(tmp_path, "__MACOSX/._a.JPG", "__MACOSX/a.png", ".cache/e.png", content=b"x")
    for name in ("IM000017", "1.2.840.113619.2", "DICOMDIR", ".trash"):
        (tmp_path / "sub" / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "sub" / "README").write_text("no image")
    (tmp_path / "sub" / "report.2024").write_text("no image either")
    return tmp_path


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_a_folder_gives_its_radiographs_sorted(tree):
    found = names(find_images([str(tree)]), tree)
    assert found == ["a.JPG", "b.png", "sub/1.2.840.113619.2", "sub/IM000017", "sub/c.dcm", "sub/deep/d.tiff"]


def test_patterns_are_expanded_for_shells_that_do_not(tree):
    assert names(find_images([str(tree / "*.png")]), tree) == ["b.png"]
    assert names(find_images([str(tree / "**" / "*.tiff")]), tree) == ["sub/deep/d.tiff"]
    assert names(find_images([str(tree / "s*")]), tree)[0] == "sub/1.2.840.113619.2"  # a folder among the matches


def test_each_file_once_in_the_order_asked_for(tree, monkeypatch):
    monkeypatch.chdir(tree)
    found = find_images(["b.png", str(tree / "b.png"), "./b.png", ".", "*.JPG"])
    assert found[0] == Path("b.png")
    assert [path.name for path in found].count("b.png") == 1
    assert len(found) == 6


@pytest.mark.parametrize("pattern", ["gone.png", "*.gone", "gone/**/*.png", ""])
def test_an_argument_without_a_match_is_named(tree, monkeypatch, pattern):
    monkeypatch.chdir(tree)
    with pytest.raises(FileNotFoundError, match="no such file or folder") as caught:
        find_images(["b.png", pattern])
    assert pattern in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_but_not_in_circles(tree):
    (tree / "sub" / "round").symlink_to(tree, target_is_directory=True)
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "f.png").write_bytes(b"x")
    (tree / "sub" / "link").symlink_to(tree / "elsewhere", target_is_directory=True)
    found = names(find_images([str(tree / "sub")]), tree)
    assert len([name for name in found if name.endswith("f.png")]) == 1
    assert len([name for name in found if name.endswith("c.dcm")]) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bytes(128) + b"DICM", True),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(20), True),  # explicit
        (b"\0\x08\0\x05CS\0\x0aISO_IR 100" + bytes(20), True),  # big endian
        (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100\x08\0\x08\0" + bytes(20), True),  # implicit
        (b"patient;finding\n17;normal\n" * 40, False),
        (b"\x08\0\xff\xff\xff\xff\xff\xff" + bytes(20), False),
        (b"", False),
    ],
)
def test_dicom_is_recognised_by_its_beginning(content, expected):
    assert looks_like_dicom(content) is expected


SYSTEMS = ("@eaDir/a.jpeg/SYNOPHOTO_THUMB_M.jpg", "#recycle/c.jpeg", "lost+found/d.jpeg", "$RECYCLE.BIN/e.jpeg", "System Volume Information/f.jpeg", "__MACOSX/._a.jpeg")  # fmt: skip


def test_files_of_servers_and_systems_are_skipped_and_named(tmp_path):
    put(tmp_path, "a.jpeg", "sub/b.jpeg", ".Trash-1000/files/x.jpeg", *SYSTEMS, *(f"sub/{name}" for name in SYSTEMS))
    with pytest.warns(UserWarning, match=r"^12 skipped: .*#recycle.* and 7 more$"):
        assert names(find_images([str(tmp_path)]), tmp_path) == ["a.jpeg", "sub/b.jpeg"]


def test_files_of_unknown_suffix_are_recognised_by_content_and_the_rest_is_named(tmp_path):
    put(tmp_path, "CHEST_PA.dic", "PAT01.CR.THORAX.0001.IMA", "1.2.840.1.img", content=bytes(128) + b"DICM")
    put(tmp_path, "a.jpeg", "scan.jpeg_large", "c.bmp", "d.webp")
    put(tmp_path, "e.heic", content=b"\0\0\0\x18ftypheic")
    with pytest.warns(UserWarning, match=r"^1 skipped: .*e\.heic$"):
        found = names(find_images([str(tmp_path)]), tmp_path)
    assert found == sorted({"CHEST_PA.dic", "PAT01.CR.THORAX.0001.IMA", "1.2.840.1.img", "a.jpeg", "scan.jpeg_large", "c.bmp", "d.webp"})  # fmt: skip


def test_a_folder_that_may_not_be_opened_is_named_and_skipped(tmp_path, monkeypatch):
    put(tmp_path, "a.jpeg", "closed/b.jpeg")
    iterdir = Path.iterdir

    def guarded(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    with pytest.warns(UserWarning, match=r"^1 skipped: .*closed/$"):
        assert names(find_images([str(tmp_path)]), tmp_path) == ["a.jpeg"]
    with pytest.raises(FileNotFoundError, match=r"holds no images; skipped: .*closed/"):
        find_images([str(tmp_path / "closed")])


def test_files_in_ignored_folders_are_neither_given_nor_named(tmp_path):
    put(tmp_path, "a.jpeg", "out/b.jpeg")
    put(tmp_path, "out/run.lock", content=b"")
    assert names(find_images([str(tmp_path)], [tmp_path / "out"]), tmp_path) == ["a.jpeg"]
