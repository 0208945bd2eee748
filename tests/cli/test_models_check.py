"""`tidegate models check`: exit codes, what is printed, JSON and SARIF, blast radius, and odd directories."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.models.lint.base import write_base
from tests.support.examples import ENSEMBLES, MODELS, RULES


def models(*arguments: object) -> Result:
    """The outcome of `tidegate models` with these arguments; an exception that escapes fails the test."""
    return CliRunner().invoke(main, ["models", *map(str, arguments)], catch_exceptions=False)


def models_failing(*arguments: object) -> str:
    """What `tidegate models` with these arguments says as it fails."""
    result = CliRunner().invoke(main, ["models", *map(str, arguments)])
    assert result.exit_code != 0
    return f"{result.output}{result.exception}"


def check_json(*arguments: object, exit_code: int = 0) -> Any:
    result = models("check", *arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_base(tmp_path / "models")


def test_a_clean_repository_is_ok_with_counts() -> None:
    result = models("check", MODELS, *ENSEMBLES)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "ok: 23 models (8 ensembles), 23 versions, no findings"
    assert result.stderr == ""


def test_findings_are_the_commands_output_with_their_place(repository: Path) -> None:
    config = repository / "ranker/config.pbtxt"
    config.write_text(config.read_text().replace("model_version: 1", "model_version: -1", 1))
    (repository / "picker/1/model.py").rename(repository / "picker/1/models.py")
    result = models("check", repository)
    assert result.exit_code == 1
    first, second, third = result.stdout.splitlines()[:3]
    assert first.startswith("picker/1: error[artefact-missing]: model.py is missing")
    assert second.startswith("ranker/config.pbtxt:27: warning[step-unpinned]: ")
    assert second.endswith("(pin it: model_version: 1)")
    assert third == "1 error, 1 warning in 4 models"
    assert "ok:" not in result.stdout
    assert result.stderr == ""


def test_a_warning_alone_fails(repository: Path) -> None:
    (repository / "picker/.DS_Store").touch()
    result = models("check", repository, "picker")
    assert result.exit_code == 1
    assert "0 errors, 1 warning in 1 model" in result.stdout.splitlines()


CALLS = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        scores = pb_utils.get_input_tensor_by_name(request, "SCORES")
        asked = pb_utils.InferenceRequest(model_name="scorer", requested_output_names=["SCORES"], inputs=[scores])
        return asked.exec()
"""
ACCEPTED = """\
accepted:
  - model: picker
    kind: code-model
    reason: Rules serve the scorer by itself, so it is loaded wherever this is.
"""


def accept(repository: Path, text: str) -> None:
    (repository / "picker/1/model.py").write_text(CALLS)
    (repository / "accepted.yaml").write_text(text)


def test_a_warning_can_be_accepted_with_a_reason(repository: Path) -> None:
    accept(repository, ACCEPTED)
    result = models("check", repository)
    assert result.exit_code == 0, result.output
    assert "1 warning accepted in accepted.yaml" in result.stdout
    document = check_json(repository)
    (accepted,) = document["accepted"]
    assert (document["findings"], accepted["kind"], accepted["model"]) == ([], "code-model", "picker")
    assert accepted["reason"].startswith("Rules serve")


@pytest.mark.parametrize(
    ("change", "kind", "line", "message"),
    [
        (("kind: code-model", "kind: queue-delay"), "accepted-unused", 2, "no warning[queue-delay] to accept"),
        (("reason:", "until: 2020-01-31\n    reason:"), "accepted-unused", 2, "ended on 2020-01-31"),
        (("model: picker", "model: pikcer"), "accepted-unused", 2, "there is no model 'pikcer'"),
        (("model: picker", "model: ../picker"), "accepted-unused", 2, "there is no model '../picker'"),
        (("kind: code-model", "kind: code-modle"), "accepted-file", 2, "did you mean 'code-model'?"),
        (("kind: code-model", "kind: code-tensor"), "accepted-file", 2, "only warnings can be accepted"),
        (("reason:", "raeson:"), "accepted-file", 4, "'raeson'"),
        (("reason: Rules serve the scorer by itself, so it is loaded wherever this is.", 'reason: ""'), "accepted-file", 4, ""),
        (("accepted:", "accepted: ["), "accepted-file", 1, "not closed"),
    ],
)  # fmt: skip
def test_an_acceptance_that_does_not_count_is_a_finding(
    repository: Path, change: tuple[str, str], kind: str, line: int, message: str
) -> None:
    accept(repository, ACCEPTED.replace(*change))
    result = models("check", repository)
    assert result.exit_code == 1
    (found,) = (each for each in result.stdout.splitlines() if each.startswith("accepted.yaml"))
    assert f"accepted.yaml:{line}: " in found
    assert f"[{kind}]: " in found
    assert message in found
    assert "warning[code-model]" in result.stdout, "what is not accepted is reported"


def test_an_acceptance_for_models_that_are_not_checked_is_left_alone(repository: Path) -> None:
    accept(repository, ACCEPTED)
    assert models("check", repository, "reader").exit_code == 0


def test_a_warning_is_accepted_once(repository: Path) -> None:
    entry = ACCEPTED.removeprefix("accepted:\n")
    again = entry.replace("Rules serve", "Nobody calls")
    ended = entry.replace("    reason", "    until: 2020-01-31\n    reason")
    accept(repository, ACCEPTED + again)
    document = check_json(repository, exit_code=1)
    (finding,) = document["findings"]
    assert (finding["kind"], finding["line"]) == ("accepted-unused", 5)
    assert "on line 2 already" in finding["message"]
    assert document["accepted"][0]["reason"].startswith("Rules serve")
    # One that has ended accepts nothing, so the other is no repetition.
    accept(repository, "accepted:\n" + ended + again)
    document = check_json(repository, exit_code=1)
    assert [finding["line"] for finding in document["findings"]] == [2]
    assert document["accepted"][0]["reason"].startswith("Nobody calls")


def test_json_has_findings_and_models(repository: Path) -> None:
    (repository / "scorer/1/model.onnx").write_bytes(b"nothing")
    document = check_json(repository, "ranker", exit_code=1)
    assert document["ok"] is False
    (finding,) = document["findings"]
    assert finding["message"].startswith("this is not an ONNX model: ")
    assert {key: value for key, value in finding.items() if key != "message"} == {
        "file": "scorer/1/model.onnx",
        "line": 0,
        "model": "scorer",
        "kind": "onnx-unreadable",
        "severity": "error",
        "hint": "export it again",
    }
    assert [model["name"] for model in document["models"]] == ["picker", "ranker", "reader", "scorer"]
    assert document["models"][1] == {
        "name": "ranker",
        "backend": "ensemble",
        "versions": [1],
        "steps": ["reader", "scorer", "picker"],
        "used_by": [],
        "objectives": [],
    }


def test_the_blast_radius_of_a_step_names_ensembles_and_objectives() -> None:
    (model,) = check_json(MODELS, "title_topk", "--rules", RULES)["models"]
    using = [config.parent.name for config in MODELS.glob("*/config.pbtxt") if '"title_topk"' in config.read_text()]
    assert model["used_by"] == sorted({*using} - {"title_topk"})
    assert {"title_ranking_ease", "title_search_semantic"} <= set(model["used_by"])
    assert {"title_ranking", "title_search"} <= set(model["objectives"])
    shown = models("check", MODELS, "title_topk", "--rules", RULES)
    assert shown.exit_code == 0
    ensembles, objectives = model["used_by"], model["objectives"]
    assert shown.stdout.splitlines()[0] == (
        f"a change of title_topk touches {len(ensembles)} ensembles: {', '.join(ensembles)}; "
        f"{len(objectives)} objectives: {', '.join(objectives)}"
    )
    assert "objective" not in models("check", MODELS, "title_topk").stdout


def test_rules_that_are_broken_are_told(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    result = models("check", repository, "--rules", tmp_path / "rules")
    assert result.exit_code == 1
    assert "fleet.yaml" in result.stderr


def test_sarif_names_rules_and_lines(repository: Path, tmp_path: Path) -> None:
    config = repository / "picker/config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", "KIND_GPU"))
    file = tmp_path / "findings.sarif"
    assert models("check", repository, "--sarif", file).exit_code == 1
    (run,) = json.loads(file.read_text())["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["instance-device"]
    (found,) = run["results"]
    place = found["locations"][0]["physicalLocation"]
    assert (found["ruleId"], found["level"], place["region"]["startLine"]) == ("instance-device", "error", 25)
    assert place["artifactLocation"]["uri"].endswith("models/picker/config.pbtxt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{models}", "rankre"), "unknown model 'rankre': did you mean 'ranker'?"),
        (("{models}/ranker",), "is a model, not a model repository"),
        (("{models}/ranker/1",), "holds no model"),
        (("{models}/nowhere",), "does not exist"),
        (("{models}/ranker/config.pbtxt",), "is a file"),
        ((), "Missing argument 'DIRECTORY'"),
        (("{models}", "--sarif", "{models}/no/where"), "cannot be written"),
    ],
)
def test_wrong_usage_is_told(repository: Path, arguments: tuple[str, ...], message: str) -> None:
    result = models("check", *(argument.format(models=repository) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_repository_under_fire_never_shows_a_traceback(repository: Path, tmp_path: Path) -> None:
    """Files cut, doubled and overwritten at random: every outcome is a list of findings."""
    random_ = random.Random(7)
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    for _ in range(150):
        path = random_.choice(files)
        data = bytearray(contents[path])
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(data) + 1)
            match random_.randrange(4):
                case 0:
                    del data[at : at + random_.randint(1, 40)]
                case 1:
                    data[at:at] = data[random_.randrange(len(data) + 1) :][:50]
                case 2:
                    data[at:at] = random_.choice([b"{", b"}", b"[", b'"', b"\0", b"\xff", b"-1", b"()", b":", b"\n"])
                case _:
                    data[at : at + 1] = bytes([random_.randrange(256)])
        path.write_bytes(data)
        result = models("check", repository)
        assert result.exit_code in (0, 1), path
        path.write_bytes(contents[path])
    assert models("check", repository).exit_code == 0


def test_what_cannot_be_read_is_a_finding(repository: Path) -> None:
    config = repository / "picker/config.pbtxt"
    config.unlink()
    config.symlink_to(config.name)
    result = models("check", repository)
    assert "picker/config.pbtxt: error[unreadable]: cannot be read: " in result.stdout


IMPORTS_TORCH = "import torch as _\n"


def test_models_are_checked_for_the_images_of_their_shards(repository: Path, tmp_path: Path) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(IMPORTS_TORCH + code.read_text())
    rules = tmp_path / "rules"
    (rules / "objectives").mkdir(parents=True)
    (rules / "images").mkdir()
    (rules / "objectives/pick.yaml").write_text("objective: pick\nrules: [{id: all, serve: picker}]\n")
    fleet = "shards: {a: {image: {name: 'own:1', manifest: images/own.yaml}}}\nmodels: {picker: {shards: [a]}}\n"
    (rules / "fleet.yaml").write_text(fleet)
    told = models("check", repository, "picker", "--rules", rules)
    assert told.exit_code == 1
    assert "fleet.yaml:1" in told.output
    assert "there is no images/own.yaml" in told.output
    (rules / "images/own.yaml").write_text("image: own:1\nbackends: [python]\ncomplete: [backends, modules]\n")
    told = models("check", repository, "picker", "--rules", rules)
    assert (
        "picker/1/model.py:1: error[import-missing]: no module 'torch', neither beside the model nor in image own:1"
        in (told.stdout)
    )
    (rules / "images/own.yaml").write_text("image: own:1\nbackends: [python]\nmodules: [torch]\n")
    assert models("check", repository, "picker", "--rules", rules).exit_code == 0


def test_an_image_can_be_named(repository: Path) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(IMPORTS_TORCH + code.read_text())
    assert "warning[import-unverified]" in models("check", repository, "picker").stdout
    nvidia = "nvcr.io/nvidia/tritonserver:24.10-trtllm-python-py3"
    assert models("check", repository, "picker", "--image", nvidia).exit_code == 0
    unknown = models("check", repository, "picker", "--image", "nvcr.io/nvidia/tritonserver")
    assert unknown.exit_code == 2
    assert "tidegate models image describe" in " ".join(unknown.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "name",
    [
        "psutil", "tensorrt_llm", "geopandas", "ujson", "arrow", "tomli", "numpyro", "cupyx", "structlog", "mpmath",
        "hiredis", "statsd", "glob2", "xarray", "urllib3", "core", "shutdowns",
    ],
)  # fmt: skip
def test_a_real_package_is_no_misspelling(repository: Path, name: str) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(f"import {name} as _\n" + code.read_text())
    result = models("check", repository, "picker")
    assert f"picker/1/model.py:1: warning[import-unverified]: module {name!r} " in result.stdout
    assert f"did you mean {name!r}" not in result.stdout
    assert "error[" not in result.stdout


@pytest.mark.parametrize("name", ["reqests", "reqeusts", "requestss", "rewuests"])
def test_a_name_one_edit_from_a_widespread_one_is_a_misspelling(repository: Path, name: str) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(f"import {name} as _\n" + code.read_text())
    result = models("check", repository, "picker")
    assert "picker/1/model.py:1: error[import-missing]: " in result.stdout
    assert "did you mean 'requests'?" in result.stdout


def test_a_module_of_one_of_several_images_is_no_misspelling(repository: Path, tmp_path: Path) -> None:
    code = repository / "picker/1/model.py"
    code.write_text("import reqests as _\n" + code.read_text())
    (tmp_path / "one.yaml").write_text("image: one:1\nbackends: [python]\nmodules: [reqests]\n")
    (tmp_path / "other.yaml").write_text("image: other:1\nbackends: [python]\n")
    images = ("--image", tmp_path / "one.yaml", "--image", tmp_path / "other.yaml")
    result = models("check", repository, "picker", *images)
    assert "warning[import-unverified]: module 'reqests'" in result.stdout
    assert "did you mean" not in result.stdout


@pytest.mark.parametrize(
    ("backend", "severity"), [("pyhton", "error"), ("fastertransformer", "warning"), ("fill", "warning")]
)
def test_a_backend_that_is_merely_alike_is_no_error(repository: Path, backend: str, severity: str) -> None:
    config = repository / "picker/config.pbtxt"
    config.write_text(config.read_text().replace('backend: "python"', f'backend: "{backend}"'))
    result = models("check", repository, "picker")
    assert f"picker/config.pbtxt:2: {severity}[backend-" in result.stdout


def test_characters_that_nobody_sees_are_named(repository: Path) -> None:
    config = repository / "picker/config.pbtxt"
    text = config.read_text()
    config.write_text(f"\ufeff{text}")
    assert "byte order mark" in models("check", repository, "picker").stdout
    config.write_text(f"\u200b{text}")
    assert "ZERO WIDTH SPACE" in models("check", repository, "picker").stdout


def test_code_that_only_raises_is_not_said_to_hang(repository: Path) -> None:
    path = repository / "picker/1/model.py"
    head, _, _ = path.read_text().partition("    def execute(")
    path.write_text(f'{head}    def execute(self, requests):\n        raise NotImplementedError("later")\n')
    shown = models("check", repository, "picker").stdout
    assert "500" in shown
    assert "never answers" not in shown


ROWS = 'scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()'
MORE = '{ name: "MORE" data_type: TYPE_BF16 dims: [ -1 ] }'


def with_bfloats(repository: Path, code: str) -> Result:
    """The outcome of a check of a picker with a BF16 input MORE beside SCORES, which reads both by this code."""
    config = repository / "picker/config.pbtxt"
    config.write_text(config.read_text().replace("input [\n", f"input [\n  {MORE},\n"))
    path = repository / "picker/1/model.py"
    path.write_text(f"import torch\n{path.read_text()}".replace(ROWS, f"{ROWS}\n            {code}"))
    return models("check", repository, "picker", "--image", "nvcr.io/nvidia/tritonserver:24.10-trtllm-python-py3")


@pytest.mark.parametrize(
    "code",
    [
        'more = torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "MORE"))',
        'more = torch.utils.dlpack.from_dlpack(pb_utils.get_input_tensor_by_name(request, "MORE").to_dlpack())',
        'tensor = pb_utils.get_input_tensor_by_name(request, "MORE")\n            more = tensor.__dlpack__()',
        "more = [each for each in request.inputs() if each.name() == 'MORE']",
    ],
)
def test_a_bfloat_input_beside_one_that_is_read_as_an_array_is_sound(repository: Path, code: str) -> None:
    result = with_bfloats(repository, code)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "code",
    [
        'more = pb_utils.get_input_tensor_by_name(request, "MORE").as_numpy()',
        'tensor = pb_utils.get_input_tensor_by_name(request, "MORE")\n            more = tensor.as_numpy()',
    ],
)
def test_a_bfloat_input_that_is_read_as_an_array_is_an_error(repository: Path, code: str) -> None:
    assert "error[code-data-type]: input 'MORE' is TYPE_BF16" in with_bfloats(repository, code).stdout


SENDER = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            scores = pb_utils.get_input_tensor_by_name(request, "SCORES")
            best = pb_utils.Tensor("BEST", scores.as_numpy().argmax(axis=1))
            label = pb_utils.Tensor("LABEL", scores.as_numpy().astype(object))
            request.get_response_sender().send(pb_utils.InferenceResponse([best, label]))
"""


@pytest.mark.parametrize(
    ("flags", "is_sound"),
    [(", flags=1", True), (", 1", True), (", flags=last", True), ("", False), (", flags=0", False)],
)
def test_a_sender_must_say_which_response_is_the_last(repository: Path, flags: str, is_sound: bool) -> None:
    code = SENDER.replace("[best, label])", f"[best, label]){flags}").replace(
        "for request", "last = 1\n        for request"
    )
    (repository / "picker/1/model.py").write_text(code)
    found = "Triton never answers" in models("check", repository, "picker").stdout
    assert found is not is_sound


@pytest.mark.parametrize(
    "body",
    [
        "from helpers import execute",
        "from helpers import execute, initialize",
        "import helpers\n\n    execute = helpers.execute",
        "from helpers import run as execute",
        "import helpers as execute",
        'import helpers\n\n    locals()["execute"] = helpers.execute',
        "def execute(self, one):\n        return one\n\n    from helpers import wrapped\n\n    execute = wrapped(execute)",
    ],
)
def test_a_method_that_the_class_imports_is_there(repository: Path, body: str) -> None:
    (repository / "picker/1/model.py").write_text(f"class TritonPythonModel:\n    {body}\n")
    helpers = (repository / "picker/1/model.py").with_name("helpers.py")
    helpers.write_text(
        "def execute(self, requests):\n    return [None for _ in requests]\n\n\nrun = wrapped = initialize = execute\n"
    )
    assert "[python-" not in models("check", repository, "picker").stdout


ANSWERS = """\
    def execute(self, requests):
        return [self.answer(request, self.scale) for request in requests]
"""


@pytest.mark.parametrize(
    "code",
    [
        f"class TritonPythonModel:\n    from helpers import initialize\n\n{ANSWERS}",
        f"import helpers\n\n\nclass TritonPythonModel:\n    initialize = helpers.initialize\n\n{ANSWERS}",
        "import helpers\n\n\nclass TritonPythonModel:\n    load = helpers.initialize\n\n"
        f"    def initialize(self, args):\n        self.load(args)\n\n{ANSWERS}",
        "class TritonPythonModel:\n    scale = 2\n    if scale:\n\n        def answer(self, request, scale):\n"
        f"            return None\n\n{ANSWERS}",
        f"class TritonPythonModel:\n{ANSWERS}\n\nTritonPythonModel.scale = 2\nTritonPythonModel.answer = print\n",
    ],
)
def test_attributes_that_come_from_outside_the_class_are_there(repository: Path, code: str) -> None:
    (repository / "picker/1/model.py").write_text(code)
    helpers = (repository / "picker/1/model.py").with_name("helpers.py")
    helpers.write_text("def initialize(self, args):\n    self.scale = 2\n    self.answer = print\n")
    assert "[python-" not in models("check", repository, "picker").stdout


def test_code_that_the_model_never_imports_completes_no_config(repository: Path) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(code.read_text().replace('request, "SCORES"', 'request, "SCOERS"'))
    code.with_name("convert.py").write_text("def convert(config, tensor):\n    config.add_input(tensor)\n")
    assert "did you mean 'SCORES'?" in models("check", repository, "picker").stdout


def test_an_image_is_described_by_its_file_system(tmp_path: Path) -> None:
    (tmp_path / "root/opt/tritonserver/backends/python").mkdir(parents=True)
    (tmp_path / "root/opt/tritonserver/backends/python/libtriton_python.so").write_text("x")
    described = models("image", "describe", "--root", tmp_path / "root", "--name", "own:1")
    assert described.exit_code == 0
    assert described.stdout.startswith('image: "own:1"\nbackends:\n  - "python"\n')
    done = models("image", "describe", "--root", tmp_path / "root", "--name", "own:1", "-o", tmp_path / "own.yaml")
    assert (done.exit_code, (tmp_path / "own.yaml").read_text()) == (0, described.stdout)


def with_packages(root: Path, folder: str) -> Path:
    """A file system of an image with Triton, and torch in a folder of packages."""
    (root / "opt/tritonserver/backends/python").mkdir(parents=True)
    (root / "opt/tritonserver/backends/python/libtriton_python.so").write_text("x")
    (root / folder / "torch").mkdir(parents=True)
    return root


@pytest.mark.parametrize("folder", ["opt/conda/lib/python3.11/site-packages", "srv/env/lib/python3.9/site-packages"])
def test_a_description_claims_no_more_than_it_has_seen(repository: Path, tmp_path: Path, folder: str) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(IMPORTS_TORCH + code.read_text())
    file = tmp_path / "own.yaml"
    root = with_packages(tmp_path / "root", folder)
    assert models("image", "describe", "--root", root, "--name", "own:1", "-o", file).exit_code == 0
    assert f"/{folder}" in file.read_text()
    result = models("check", repository, "picker", "--image", file)
    assert "warning[import-unverified]: module 'torch'" in result.stdout
    (root / folder / "torch").rename(root / folder / "__pycache__")
    models("image", "describe", "--root", root, "--name", "own:1", "-o", file)
    assert "error[import-missing]: no module 'torch'" in models("check", repository, "picker", "--image", file).stdout


def test_a_description_has_the_newest_python(tmp_path: Path) -> None:
    root = with_packages(tmp_path / "root", "usr/lib/python3.9/dist-packages")
    (root / "usr/lib/python3.10/dist-packages").mkdir(parents=True)
    described = models("image", "describe", "--root", root, "--name", "own:1")
    assert 'python: "3.10"\n' in described.stdout


def edited(packages: Path, *, says_modules: bool) -> None:
    """Install a distribution whose module torch is found by a hook, as `pip install -e` does."""
    info = packages / "torch-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///elsewhere"}')
    if says_modules:
        (info / "top_level.txt").write_text("torch\n")


@pytest.mark.parametrize("says_modules", [True, False])
def test_a_package_in_editable_mode_is_there(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_modules: bool
) -> None:
    code = repository / "picker/1/model.py"
    code.write_text(IMPORTS_TORCH.replace("torch", "thing_of_tomorrow") + code.read_text())
    assert "error[import-missing]" in models("check", repository, "picker", "--image", "local").stdout
    code.write_text(code.read_text().replace("thing_of_tomorrow", "torch"))
    edited(tmp_path / "here", says_modules=says_modules)
    monkeypatch.syspath_prepend(tmp_path / "here")
    assert models("check", repository, "picker", "--image", "local").exit_code == 0
    # The same within an image, and of a folder that a .pth file adds.
    root = with_packages(tmp_path / "root", "src/of/it")
    packages = root / "usr/lib/python3.10/dist-packages"
    file = tmp_path / "own.yaml"
    edited(packages, says_modules=says_modules)
    assert models("image", "describe", "--root", root, "--name", "own:1", "-o", file).exit_code == 0
    assert models("check", repository, "picker", "--image", file).exit_code == 0
    (packages / "torch-1.0.dist-info/direct_url.json").unlink()
    (packages / "added.pth").write_text("# by a tool\nimport nothing\n/src/of/it\n/nowhere\n")
    assert models("image", "describe", "--root", root, "--name", "own:1", "-o", file).exit_code == 0
    assert models("check", repository, "picker", "--image", file).exit_code == 0


@pytest.mark.parametrize("root", ["", "root"])
def test_what_is_no_image_is_not_described(tmp_path: Path, root: str) -> None:
    (tmp_path / "root").mkdir()
    described = models_failing("image", "describe", "--root", tmp_path / root, "--name", "own:1")
    assert "there is no Triton: no directory" in described


def test_help_does_not_import_what_the_commands_need() -> None:
    result = models("--help")
    assert result.exit_code == 0
    assert "Check models by their files alone." in result.stdout
