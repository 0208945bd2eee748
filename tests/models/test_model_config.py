"""What a model repository on disk says: closures, versions, completeness, and the mistakes that would make Triton hang."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tidegate.errors import ModelConfigError
from tidegate.models.catalog import plan_directory
from tidegate.models.folder import are_complete
from tidegate.ports import ModelLoad
from tidegate.rules import Target

from tests.support.stack import REPOSITORIES, make_repository

SMALL = REPOSITORIES / "small"


def target(model: str, version: int | None = None) -> Target:
    return Target(model if version is None else f"{model}/{version}", model, version, ("a",))


def plan(models: Path, targets: Sequence[Target]) -> tuple[ModelLoad, ...]:
    return asyncio.run(plan_directory(models, targets))


def served(load: ModelLoad) -> list[int]:
    """The versions that a load's config asks Triton for."""
    assert load.config is not None
    versions: list[int] = json.loads(load.config)["version_policy"]["specific"]["versions"]
    return versions


def test_a_closure_loads_steps_before_the_ensemble_and_each_once() -> None:
    loads = plan(SMALL, [target("simple_pipeline"), target("simple")])
    assert [(load.model, load.versions, load.steps) for load in loads] == [
        ("simple", (1,), ()),
        ("simple_pipeline", (1,), ("simple",)),
    ]


@pytest.mark.parametrize(
    ("targets", "versions"),
    [
        ([target("versioned")], (3,)),
        ([target("versioned", 3)], (3,)),
        ([target("versioned", 1)], (1,)),
        ([target("versioned", 1), target("versioned", 2)], (1, 2)),
        ([target("versioned", 1), target("versioned")], (1, 3)),
        ([target("versioned"), target("versioned_pipeline")], (2, 3)),
    ],
)
def test_exactly_the_versions_that_are_needed_are_served(targets: list[Target], versions: tuple[int, ...]) -> None:
    (load,) = (load for load in plan(SMALL, targets) if load.model == "versioned")
    assert (load.versions, served(load)) == (versions, list(versions))


@pytest.mark.parametrize(
    ("policy", "version"),
    [("all {}", 3), ("latest { num_versions: 2 }", 3), ("specific { versions: [ 1, 2 ] }", 2)],
)
def test_a_target_without_a_version_gets_the_highest_of_the_models_own_policy(
    tmp_path: Path, policy: str, version: int
) -> None:
    models = make_repository(tmp_path, "versioned")
    with (models / "versioned" / "config.pbtxt").open("a") as config:
        config.write(f"version_policy {{ {policy} }}\n")
    assert [load.versions for load in plan(models, [target("versioned")])] == [(version,)]


@pytest.mark.parametrize("policy", ["specific { versions: [ 9 ] }", "latest { num_versions: 0 }", "latest {}"])
def test_a_policy_that_serves_nothing_is_refused(tmp_path: Path, policy: str) -> None:
    models = make_repository(tmp_path, "versioned")
    with (models / "versioned" / "config.pbtxt").open("a") as config:
        config.write(f"version_policy {{ {policy} }}\n")
    with pytest.raises(ModelConfigError, match=r"config\.pbtxt: version_policy serves none .* target 'versioned'"):
        plan(models, [target("versioned")])
    assert plan(models, [target("versioned", 3)])[0].versions == (3,)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (target("absent"), "target 'absent' needs model 'absent', but .* has none of that name"),
        (
            target("versioned", 9),
            "target 'versioned/9' needs version 9 of model 'versioned', .*; versions there: 1, 2, 3",
        ),
        (target("my model"), "Triton hangs on a name with a blank"),
        (target("no_model_py"), r"no_model_py/1/model\.py is missing"),
        (target("no_class"), r"no_class/1/model\.py: there is no class TritonPythonModel"),
    ],
)
def test_what_would_hang_is_refused_and_located(tmp_path: Path, wanted: Target, message: str) -> None:
    models = make_repository(tmp_path, "versioned", "no_model_py", "no_class")
    with pytest.raises(ModelConfigError, match=message):
        plan(models, [wanted])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class TritonPythonModel:\n    pass\n", r"model\.py:1: .* no method execute"),
        ("import (\n", r"model\.py:1: "),
        ("class TritonPythonModel(Base):\n    pass\n", None),
        ("from steps import Model as TritonPythonModel\n", None),
        ("TritonPythonModel = make()\n", None),
    ],
)
def test_a_python_model_must_have_the_class_that_triton_calls(tmp_path: Path, source: str, message: str | None) -> None:
    models = make_repository(tmp_path, "simple")
    (models / "simple" / "1" / "model.py").write_text(source)
    if message is None:
        assert plan(models, [target("simple")])
    else:
        with pytest.raises(ModelConfigError, match=message):
            plan(models, [target("simple")])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name: "simple"', '\ufeffname: "simple"', r"config\.pbtxt: .*byte order mark"),
        ('name: "simple"', 'name: "other"', "name is 'other', but the folder is 'simple'"),
        ("max_batch_size: 8", "max_batch_seize: 8", r"config\.pbtxt:3:1 : .*max_batch_seize"),
        ("TYPE_INT32", "TYPE_INT33", r"config\.pbtxt:5:\d+ : .*TYPE_INT33"),
    ],
)
def test_a_config_that_is_wrong_is_located(tmp_path: Path, old: str, new: str, message: str) -> None:
    models = make_repository(tmp_path, "simple")
    config = models / "simple" / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ModelConfigError, match=message):
        plan(models, [target("simple")])


def test_an_ensemble_that_calls_itself_is_refused(tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple_pipeline")
    config = models / "simple_pipeline" / "config.pbtxt"
    config.write_text(config.read_text().replace('model_name: "simple"', 'model_name: "simple_pipeline"'))
    with pytest.raises(ModelConfigError, match="simple_pipeline -> simple_pipeline"):
        plan(models, [target("simple_pipeline")])


def test_configs_are_complete_until_one_leaves_something_to_triton(tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple", "simple_pipeline", "versioned")
    assert are_complete(models)
    (models / "versioned" / "config.pbtxt").write_text('backend: "python"\n')
    assert not are_complete(models)
    (models / "versioned" / "config.pbtxt").unlink()
    assert not are_complete(models)
