"""`tidegate models smoke` on the real Triton: what it can ask, and what it loads to ask it."""

from __future__ import annotations

import pytest

from tests.cli.test_models_smoke import Run, smoke
from tests.triton.misbehaving import write_model
from tests.triton.unusual import write_caller, write_echo


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All models tried in one run."""
    root = tmp_path_factory.mktemp("unusual") / "models"
    write_echo(root, "every_type", sample=True)
    write_echo(root, "every_type_made_up", sample=False)
    write_model(root, "called")
    write_caller(root, "caller", "called")
    write_caller(root, "caller_of_caller", "caller")
    write_caller(root, "calls_nothing_there", "gone")
    write_caller(root, "asks_wrongly", "called", output="Q")
    write_model(root, "lacks_module", samples={}, check="import module_that_no_image_has")
    write_model(root, "no_tensor", samples={}, tensors='[pb_utils.Tensor("Y", [1.0, 2.0])]')
    for name, head in {
        "latin_comment": "# caf\xe9\n",
        "latin_declared": "# coding: latin-1\nWORD = 'caf\xe9'\n",
    }.items():
        write_model(root, name)
        code = root / name / "1/model.py"
        code.write_bytes(head.encode("latin-1") + code.read_bytes())
    write_model(root, "no_version", more="version_policy { latest { num_versions: 0 } }\n")
    models = [
        "caller_of_caller",
        "every_type",
        "every_type_made_up",
        "calls_nothing_there",
        "lacks_module",
        "no_tensor",
    ]
    return smoke(root, *models, "asks_wrongly", "latin_comment", "latin_declared", "no_version", "--json")


def test_every_data_type_is_asked_and_compared(run: Run) -> None:
    assert run.kinds("every_type") == set()
    assert run.kinds("every_type_made_up") == {"samples-missing"}
    assert run.model("every_type_made_up")["requests"] > 2


def test_models_that_the_code_calls_are_loaded_with_it(run: Run) -> None:
    assert run.kinds("caller_of_caller") == {"samples-missing"}
    assert run.model("caller_of_caller")["requests"] > 2


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("calls_nothing_there", "'gone' is not ready"),
        ("asks_wrongly", "unexpected inference output 'Q'"),
        ("lacks_module", "ModuleNotFoundError"),
        ("no_tensor", "incompatible constructor arguments"),
    ],
)
def test_what_no_input_changes_is_an_error(run: Run, model: str, reason: str) -> None:
    assert reason in run.finding("answer-failed", model)["message"]
    assert run.kinds(model) == {"samples-missing", "answer-failed"}


@pytest.mark.parametrize("model", ["latin_comment", "latin_declared"])
def test_code_is_read_in_the_encoding_that_an_import_takes(run: Run, model: str) -> None:
    assert run.kinds(model) == set()
    assert run.model(model)["requests"] > 2


def test_a_policy_that_serves_nothing_is_refused_as_triton_refuses_it(run: Run) -> None:
    assert run.kinds("no_version") == {"load-refused", "version-policy"}
