"""`tidegate models new`, `pull` and `version`: a retrained model is a version of its own, and nothing that was live changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.aws.model_store import S3ModelStore
from tidegate.cli import main

from tests.support.aws import LocalAws
from tests.support.model_folders import seal_all, write_model

ENSEMBLE = b"""\
# The pipeline.
name: "pipeline"
platform: "ensemble"
ensemble_scheduling {
  step [
    { model_name: "scorer"  model_version: 1 },  # pinned
    { model_name: "words" model_version: 1 }
  ]
}
"""
MODELS = {
    "scorer/config.pbtxt": b'name: "scorer"  # mine\n',
    "scorer/configs/gpu.pbtxt": b"name: 'scorer'\n",
    "scorer/1/model.onnx": b"first",
    "scorer/1/notes/a.txt": b"a",
    "scorer/samples/a.json": b"{}",
    "words/config.pbtxt": b'name: "words"\n',
    "words/1/model.py": b"words",
    "pipeline/config.pbtxt": ENSEMBLE,
    "pipeline/1/.keep": b"",
}
RULES = {
    "fleet.yaml": b"""\
shards: {a: {}}
models:
  scorer: {shards: [a]}     # the scorer
  pipeline: {shards: [a]}
aliases:
  best@champion: scorer/1   # until the next
""",
    "objectives/pipeline.yaml": b"""\
objective: pipeline   # named as the model
rules:
  - id: scorer/1
    when: {device: {not: "scorer/1"}}
    split: {"scorer/1": 90, pipeline: 10}
    shadow: {pipeline/1: 10}
  - {id: default, serve: pipeline, fallback: ['scorer/1']}
""",
    "cases/pipeline.yaml": b"""\
objective: pipeline
cases:
  - {name: scorer/1, context: {device: scorer/1}, expect: {rule: default, model: pipeline, fallbacks: [scorer/1]}}
""",
}


@pytest.fixture
def here(aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("TIDEGATE_BUCKET", aws.bucket)
    write_model(tmp_path / "triton_models", MODELS)
    write_model(tmp_path / "routing_rules", RULES)
    return tmp_path


@pytest.fixture
def push(aws: LocalAws, here: Path) -> Callable[..., None]:
    def work(*models: str, live: bool = True) -> None:
        for model in models:
            asyncio.run(S3ModelStore(aws.objects()).push(model, here / "triton_models" / model, lambda *_: None))
            if live:
                seal_all(S3ModelStore(aws.objects()), model)

    return work


def models(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["models", *arguments])
    assert result.exit_code == exit_code, f"{result.output}{result.exception}"
    return result


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def retrain(here: Path) -> None:
    write_model(here / "triton_models", {"scorer/1/model.onnx": b"retrained", "scorer/1/more.txt": b"more"})


def test_what_was_changed_is_the_next_version_and_the_one_before_is_restored(
    here: Path, push: Callable[..., None]
) -> None:
    push("scorer", "words", "pipeline", live=True)
    retrain(here)
    before = contents(here)
    assert "dry run" in models("version", "scorer", "--dry-run").stdout
    declined = CliRunner().invoke(main, ["models", "version", "scorer"], input="n\n")
    assert (declined.exit_code, "nothing was changed" in declined.stdout) == (1, True)
    unanswered = CliRunner().invoke(main, ["models", "version", "scorer"], input="")
    assert (unanswered.exit_code, "give --yes" in unanswered.stderr) == (2, True)
    assert contents(here) == before, "neither changed anything"
    shown = models("version", "scorer", "--yes").stdout
    assert shown.endswith("\n  tidegate publish --rules routing_rules --models triton_models\n"), "it can be pasted"
    assert "unless a stack that follows these rules" in shown
    after = contents(here / "triton_models")
    assert {path: data for path, data in after.items() if path.startswith("scorer/1/")} == {
        "scorer/1/model.onnx": b"first",
        "scorer/1/notes/a.txt": b"a",
    }
    assert {path: data for path, data in after.items() if path.startswith("scorer/2/")} == {
        "scorer/2/model.onnx": b"retrained",
        "scorer/2/more.txt": b"more",
        "scorer/2/notes/a.txt": b"a",
    }
    assert after["pipeline/config.pbtxt"] == ENSEMBLE, "it was live, and never changes"
    assert after["pipeline_v2/config.pbtxt"] == ENSEMBLE.replace(b'"pipeline"', b'"pipeline_v2"').replace(
        b'"scorer"  model_version: 1', b'"scorer"  model_version: 2'
    )
    assert "pipeline_v2/1/.keep" in after
    rules = contents(here / "routing_rules")
    assert rules["fleet.yaml"] == RULES["fleet.yaml"].replace(b"pipeline:", b"pipeline_v2:").replace(
        b"champion: scorer/1", b"champion: scorer/2"
    )
    assert rules["objectives/pipeline.yaml"] == RULES["objectives/pipeline.yaml"].replace(
        b'{"scorer/1": 90, pipeline: 10}', b'{"scorer/2": 90, pipeline_v2: 10}'
    ).replace(b"pipeline/1", b"pipeline_v2/1").replace(b"serve: pipeline, fallback: ['scorer/1']", b"serve: pipeline_v2, fallback: ['scorer/2']")  # fmt: skip
    assert rules["cases/pipeline.yaml"] == RULES["cases/pipeline.yaml"].replace(
        b"model: pipeline, fallbacks: [scorer/1]", b"model: pipeline_v2, fallbacks: [scorer/2]"
    )
    assert "+  best@champion: scorer/2   # until the next" in shown
    assert not [path for path in (here / "triton_models").iterdir() if path.name.startswith(".")]


def test_an_ensemble_that_was_never_live_is_edited_in_place(here: Path, push: Callable[..., None]) -> None:
    push("scorer")
    push("pipeline", live=False)
    retrain(here)
    document = json.loads(models("version", "scorer", "--yes", "--json").stdout)
    assert (document["before"], document["version"], document["restored"], document["copies"]) == (1, 2, True, {})
    config = (here / "triton_models/pipeline/config.pbtxt").read_bytes()
    assert config == ENSEMBLE.replace(b'"scorer"  model_version: 1', b'"scorer"  model_version: 2')
    assert b"pipeline_v2" not in b"".join(contents(here).values())


def test_a_stack_publishes_no_version_that_no_rule_names(here: Path, push: Callable[..., None]) -> None:
    push("scorer", live=True)
    retrain(here)
    shown = models("version", "scorer", "--keep-pins", "--yes").stdout
    assert "tidegate publish" in shown
    assert "unless a stack" not in shown


def test_pins_can_be_kept(here: Path, push: Callable[..., None]) -> None:
    push("scorer", "words", "pipeline")
    retrain(here)
    models("version", "scorer", "--keep-pins", "--yes")
    assert contents(here / "routing_rules") == RULES
    assert (here / "triton_models/scorer/2/model.onnx").read_bytes() == b"retrained"
    assert not (here / "triton_models/pipeline_v2").exists()


def test_without_a_store_the_last_version_is_copied(here: Path) -> None:
    retrain(here)
    models("version", "scorer", "--offline", "--yes")
    after = contents(here / "triton_models")
    assert after["scorer/1/model.onnx"] == after["scorer/2/model.onnx"] == b"retrained"
    assert b"scorer/2" in (here / "routing_rules/fleet.yaml").read_bytes()


def test_what_is_no_new_version_is_told(here: Path, push: Callable[..., None]) -> None:
    push("scorer")
    before = contents(here)
    unchanged = CliRunner().invoke(main, ["models", "version", "scorer", "--yes"])
    assert "other than it was pushed" in f"{unchanged.output}{unchanged.exception}"
    push("words", live=False)
    write_model(here / "triton_models", {"words/1/model.py": b"other"})
    draft = CliRunner().invoke(main, ["models", "version", "words", "--yes"])
    assert "was never live" in f"{draft.output}{draft.exception}"
    write_model(here / "triton_models", {"scorer/config.pbtxt": b"other"})
    config = CliRunner().invoke(main, ["models", "version", "scorer", "--yes"])
    assert "tidegate models new NAME --from scorer" in f"{config.output}{config.exception}"
    write_model(
        here / "triton_models", {"scorer/config.pbtxt": MODELS["scorer/config.pbtxt"], "words/1/model.py": b"words"}
    )
    assert contents(here) == before
    assert models("version", "scorer", "--json", exit_code=2).stdout


def test_a_version_that_is_only_in_the_store_is_counted(aws: LocalAws, here: Path, push: Callable[..., None]) -> None:
    write_model(here / "triton_models", {"scorer/7/model.onnx": b"seven"})
    push("scorer")
    (here / "triton_models/scorer/7/model.onnx").unlink()
    (here / "triton_models/scorer/7").rmdir()
    retrain(here)
    models("version", "scorer", "--yes")
    assert (here / "triton_models/scorer/8/model.onnx").read_bytes() == b"retrained"


def test_a_copy_says_its_own_name(here: Path) -> None:
    models("new", "other", "--from", "scorer")
    after = contents(here / "triton_models/other")
    assert after["config.pbtxt"] == b'name: "other"  # mine\n'
    assert after["configs/gpu.pbtxt"] == b'name: "other"\n'
    assert after["1/model.onnx"] == b"first"
    models("new", "pipeline_b", "--from", "pipeline")
    copied = (here / "triton_models/pipeline_b/config.pbtxt").read_bytes()
    assert copied == ENSEMBLE.replace(b'"pipeline"', b'"pipeline_b"'), "its steps stay"
    before = contents(here)
    for arguments in (("other", "--from", "scorer"), ("fresh", "--from", "nobody"), ("../x", "--from", "scorer")):
        models("new", *arguments, exit_code=1)
    for source in ("", "..", "."):
        models("new", "fresh", "--from", source, exit_code=1)
    assert contents(here) == before


def test_a_pushed_model_is_pulled_as_it_was_pushed(aws: LocalAws, here: Path, push: Callable[..., None]) -> None:
    write_model(here / "triton_models", {"scorer/2/model.onnx": b"second"})
    push("scorer")
    models("pull", "scorer", "--to", "all")
    assert contents(here / "all/scorer") == contents(here / "triton_models/scorer")
    models("pull", "scorer/2", "--to", "one")
    assert set(contents(here / "one/scorer")) == {"config.pbtxt", "configs/gpu.pbtxt", "2/model.onnx", "samples/a.json"}
    (here / "one/scorer/2/model.onnx").write_bytes(b"mine")
    models("pull", "scorer", "--to", "one", exit_code=1)
    assert (here / "one/scorer/2/model.onnx").read_bytes() == b"mine"
    assert not (here / "one/scorer/1").exists(), "nothing was written"
    aws.s3().put_object(Bucket=aws.bucket, Key="models/scorer/1/model.onnx", Body=b"damaged")
    models("pull", "scorer", "--to", "damaged", exit_code=1)
    assert not (here / "damaged").exists()
    for model in ("nobody", "scorer/9"):
        models("pull", model, "--to", "none", exit_code=1)


def test_a_pull_that_is_interrupted_can_be_repeated(
    here: Path, push: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    push("scorer")
    write_bytes = Path.write_bytes

    def interrupted(path: Path, content: bytes) -> int:
        if content != b"first":
            return write_bytes(path, content)
        write_bytes(path, content[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        assert CliRunner().invoke(main, ["models", "pull", "scorer", "--to", "all"]).exit_code != 0
    models("pull", "scorer", "--to", "all")
    assert contents(here / "all/scorer") == contents(here / "triton_models/scorer")
    assert [path.name for path in (here / "all").iterdir()] == ["scorer"]


def test_what_is_withdrawn_while_it_is_pulled_is_told(
    here: Path, push: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    push("scorer", live=False)

    async def gone(*_: object) -> None:
        return None

    monkeypatch.setattr(S3ModelStore, "read", gone)
    for arguments in (("pull", "scorer", "--to", "all"), ("version", "scorer/1", "--yes")):
        retrain(here)
        told = CliRunner().invoke(main, ["models", *arguments])
        assert "withdrawn" in f"{told.output}{told.exception}", arguments
    assert not (here / "all").exists()
    assert not (here / "triton_models/scorer/2").exists()


def test_what_cannot_be_copied_or_edited_is_named(here: Path) -> None:
    write_model(here / "triton_models", {"latin/config.pbtxt": ENSEMBLE + b"# caf\xe9\n", "latin/1/.keep": b""})
    for arguments in (("new", "fresh", "--from", "latin"), ("version", "scorer", "--offline", "--yes")):
        told = CliRunner().invoke(main, ["models", *arguments])
        assert "latin/config.pbtxt is not UTF-8 text" in told.output, arguments
    assert not (here / "triton_models/fresh").exists()
    assert not (here / "triton_models/scorer/2").exists()
    (here / "triton_models/latin/config.pbtxt").unlink()
    (here / "triton_models/words/1/away").symlink_to("nowhere")
    for arguments in (("new", "other", "--from", "words"), ("version", "words", "--offline", "--yes")):
        told = CliRunner().invoke(main, ["models", *arguments])
        assert "words/1/away" in f"{told.output}{told.exception}"
        assert "None" not in f"{told.output}{told.exception}"
