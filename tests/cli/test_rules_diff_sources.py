"""What `tidegate rules diff` compares: directories, bundles, and either in a git revision."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tidegate.rules.bundle import encode, pack, unpack

from tests.cli.diffed import diff, directory, flows
from tests.cli.rules_runner import rules


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return directory(tmp_path / "old")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose rules serve base, then better, then (not committed) best, and base on a branch."""
    root = tmp_path / "repository"
    for number, model in enumerate(("base", "better")):
        directory(root / "deploy/rules", rules=[{"id": "all", "serve": model}])
        (root / "deploy/rules/README.md").write_text(f"{number}", "utf-8")
        if number == 0:
            git(root, "init", "-q")
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", model)
        git(root, "tag", f"v{number + 1}")
    git(root, "branch", "other", "v1")
    directory(root / "deploy/rules", rules=[{"id": "all", "serve": "best"}])
    monkeypatch.chdir(root)
    return root


def test_a_git_revision_is_read_without_touching_the_work_tree(repository: Path) -> None:
    before = git(repository, "status", "--porcelain"), (repository / ".git/index").read_bytes()
    assert flows(diff("HEAD~1:deploy/rules", "deploy/rules")) == {("base", "best"): 1}
    assert flows(diff("v1:deploy/rules", "v2:deploy/rules")) == {("base", "better"): 1}
    assert flows(diff("HEAD:deploy/rules/", "other:deploy/rules")) == {("better", "base"): 1}
    head = git(repository, "rev-parse", "HEAD").strip()
    assert rules("diff", f"{head}:deploy/rules", "HEAD:deploy/rules").exit_code == 0
    assert rules("diff", "HEAD@{0}:deploy/rules", "main:deploy/rules").exit_code == 0
    assert before == (git(repository, "status", "--porcelain"), (repository / ".git/index").read_bytes())


def test_git_paths_count_from_the_root_and_relative_ones_from_here(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "deploy")
    assert flows(diff("HEAD:deploy/rules", "rules")) == {("better", "best"): 1}
    assert flows(diff("HEAD:./rules", "rules")) == {("better", "best"): 1}
    refused = rules("diff", "HEAD:rules", "rules")
    assert refused.exit_code == 2
    assert "write HEAD:deploy/rules" in refused.stderr


def test_bundles_are_read_from_files_and_from_git(repository: Path) -> None:
    assert rules("compile", "deploy/rules", "-o", "rules.bundle").exit_code == 0
    assert flows(diff("HEAD:deploy/rules", "rules.bundle")) == {("better", "best"): 1}
    git(repository, "add", "rules.bundle")
    git(repository, "commit", "-q", "-m", "bundle")
    assert rules("diff", "HEAD:rules.bundle", "rules.bundle").exit_code == 0


def test_a_bundle_whose_index_is_of_other_rules_is_refused(old: Path, tmp_path: Path) -> None:
    sound, wrong, log = tmp_path / "sound.bundle", tmp_path / "wrong.bundle", tmp_path / "log.jsonl"
    assert rules("compile", old, "-o", sound).exit_code == 0
    bundle = unpack(sound.read_bytes())
    index = json.loads(bundle.lines[2])
    wrong.write_bytes(pack(bundle.manifest, [encode(index | {"rows": index["rows"] + 1}), *bundle.lines[3:]]))
    log.write_text('{"objective": "ranking", "context": {}}\n')
    for argument, arguments in {
        "OLD": ["diff", wrong, sound],
        "NEW": ["diff", sound, wrong],
        "RULES": ["replay", wrong, "--log", log],
        "--against": ["replay", sound, "--log", log, "--against", wrong],
    }.items():
        refused = rules(*arguments)
        assert refused.exit_code == 2
        assert argument in refused.stderr
        assert "wrong.bundle: the bundle is damaged" in refused.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HEAD~9:deploy/rules", "git knows no revision 'HEAD~9'"),
        ("v9:deploy/rules", "git knows no revision 'v9'"),
        ("HEAD:rules", "git revision 'HEAD' has no path 'rules'"),
        ("HEAD", "write HEAD:PATH"),
        ("nowhere", "neither a directory nor a bundle, and git knows no revision 'nowhere'"),
        ("HEAD:deploy/rules/README.md", "not a Tidegate bundle"),
        ("deploy/rules/README.md", "not a Tidegate bundle"),
        ("", "names no git revision"),
        ("a\0b", "cannot be run"),
        ("x" * 5000, "git knows no revision"),
    ],
)
def test_what_is_not_there_is_wrong_usage(name: str, said: str, repository: Path) -> None:
    for refused in (rules("diff", name, "deploy/rules"), rules("diff", "deploy/rules", name)):
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())


def test_a_name_is_never_an_option_of_git(repository: Path) -> None:
    refused = rules("diff", "--", "--output=stolen", "deploy/rules")
    assert refused.exit_code == 2
    assert not (repository / "stolen").exists()


def test_a_symbolic_link_in_a_revision_is_refused(repository: Path) -> None:
    (repository / "deploy/rules/objectives/linked.yaml").symlink_to("ranking.yaml")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "link")
    refused = rules("diff", "HEAD:deploy/rules", "deploy/rules")
    assert refused.exit_code == 2
    assert "objectives/linked.yaml" in refused.stderr


def test_callers_that_are_not_a_file_in_a_revision_are_refused(repository: Path) -> None:
    """Rules without their `callers.yaml` would let everybody call everything."""
    (repository / "deploy/rules/callers.yaml").mkdir()
    (repository / "deploy/rules/callers.yaml/.keep").touch()
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "folder")
    submodule = f"160000,{git(repository, 'rev-parse', 'HEAD').strip()},deploy/rules/callers.yaml"
    folder = rules("diff", "HEAD:deploy/rules", "v1:deploy/rules")
    git(repository, "rm", "-rq", "deploy/rules/callers.yaml")
    git(repository, "update-index", "--add", "--cacheinfo", submodule)
    git(repository, "commit", "-q", "-m", "submodule")
    for refused, kind in ((folder, "folder"), (rules("diff", "HEAD:deploy/rules", "v1:deploy/rules"), "submodule")):
        assert refused.exit_code == 2
        assert "callers.yaml" in refused.stderr
        assert kind in refused.stderr


def test_a_file_whose_content_a_clone_lacks_is_named(repository: Path) -> None:
    digest = git(repository, "rev-parse", "v1:deploy/rules/fleet.yaml").strip()
    (repository / ".git/objects" / digest[:2] / digest[2:]).unlink()
    refused = rules("diff", "v1:deploy/rules", "deploy/rules")
    assert refused.exit_code == 2
    assert "fleet.yaml" in refused.stderr


def test_outside_of_a_repository_and_without_git(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    refused = rules("diff", "HEAD:rules", old)
    assert refused.exit_code == 2
    assert "not a git repository" in refused.stderr
    monkeypatch.setenv("PATH", "")
    refused = rules("diff", "HEAD:rules", old)
    assert refused.exit_code == 2
    assert "git is not installed" in refused.stderr
