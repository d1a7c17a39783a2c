import shutil
import subprocess

import pytest
import torch

from cxr import model_file


def test_provenance_names_versions_device_and_code_as_plain_values(processor):
    record = model_file.run_environment(processor)
    assert record["torch"] == torch.__version__
    assert record["device"].startswith("cpu")
    assert (record["bf16"], record["bf16_speedup"], record["processes"]) == (False, None, 1)
    assert all(type(value) in (str, int, bool, type(None)) for value in record.values())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_this_repository_and_of_its_code(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "code.py").write_text("as committed")
    (copy / "curve.png").write_text("as committed")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=another")
    monkeypatch.setattr(model_file, "ROOT", copy)
    assert model_file.commit() is None  # the repository around a copy is not ours
    shutil.move(tmp_path / ".git", copy / ".git")
    assert model_file.commit().endswith("-dirty")  # the files have moved up by a folder
    git("-C", "copy", "add", "--all")
    git("-C", "copy", "commit", "--quiet", "--message=moved")
    (copy / "curve.png").write_text("as a run drew it")
    clean = model_file.commit()
    assert len(clean) == 12 and int(clean, 16)


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert model_file.commit() is None
