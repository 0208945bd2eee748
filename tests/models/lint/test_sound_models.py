"""Models that are right, in unusual ways: nothing may be found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tidegate.models.lint.checker import check_closure, check_models, judge_models
from tidegate.models.lint.folder import Repository

from tests.models.lint.base import copy_base, onnx_bytes, save_onnx, write_base
from tests.models.lint.test_broken_models import (
    EXECUTE,
    GROUP,
    MODELS,
    PICKER,
    PICKER_PY,
    RANKER,
    READER,
    READER_PY,
    SCORER,
    Change,
    append,
    both,
    edit,
    external_onnx,
    rename,
    write,
)
from tests.support import examples
from tests.support.stack import ROOT

PYTHON_HEAD = "import numpy as np\nimport triton_python_backend_utils as pb_utils\n\n\n"
FULL = 'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {batch}\ninput [ {{ name: "X" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\noutput [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n'


def config(name: str, backend: str = "python", batch: int = 8, dims: str = "4") -> str:
    """A whole config with one input X and one output Y."""
    return FULL.format(name=name, backend=backend, batch=batch, dims=dims)


def python(source: str, **options: object) -> Change:
    """A further Python model `more`."""
    return both(
        write("more/config.pbtxt", config("more", **options)),  # type: ignore[arg-type]
        write("more/1/model.py", PYTHON_HEAD + source),
    )


def class_with(*lines: str) -> str:
    """A model whose `execute` has these lines."""
    body = "".join(f"        {line}\n" for line in lines)
    return f"class TritonPythonModel:\n    def execute(self, requests):\n{body}"


INPUT = 'pb_utils.get_input_tensor_by_name(request, "X").as_numpy()'
RESPONSE = 'pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])'

WRITING = {
    "comments, quotes and brackets of all kinds": write(
        "more/config.pbtxt",
        "# a model\nname: 'more' backend: \"py\" 'thon'; max_batch_size: 8\n"
        'input < name: "X", data_type: TYPE_FP32, dims: 4 >\noutput: [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
        "instance_group { kind: 2 count: 1 }\n",
    ),
    "no name": write("more/config.pbtxt", config("more").replace('name: "more"\n', "")),
    "Windows line ends": write("more/config.pbtxt", config("more").replace("\n", "\r\n").encode()),
    "the legacy platform of ONNX": edit(SCORER, 'backend: "onnxruntime"', 'platform: "onnxruntime_onnx"'),
    "backend and platform": append(SCORER, 'platform: "onnxruntime_onnx"\n'),
    "no backend where the file tells": edit(READER, 'backend: "python"\n', ""),
    "a file of another name": both(append(PICKER, 'default_model_filename: "pick.py"\n'), rename(PICKER_PY, "pick.py")),
    "several versions": both(write("scorer/2/model.onnx", onnx_bytes()), append(SCORER, "version_policy: { all {} }\n")),
    "a policy for one version": edit(READER, "all {}", "specific { versions: [ 1 ] }"),
    "another config for GPUs": write("scorer/configs/gpu.pbtxt", "instance_group [ { kind: KIND_GPU count: 2 gpus: [ 0 ] } ]\n"),
    "documentation and labels": both(
        write("picker/README.md"),
        write("picker/docs/how.md"),
        write("picker/labels.txt", "a\nb\n"),
        edit(PICKER, '"LABEL"\n', '"LABEL"\n    label_filename: "labels.txt"\n'),
    ),
    "files that keep folders": both(write("reader/1/data/.gitkeep", ""), write("ranker/1/README", "an ensemble\n")),
    "a library of the backend's own": both(
        write("more/config.pbtxt", config("more", "special")), write("more/1/libtriton_special.so", b"\x7fELF")
    ),
    "TensorRT, which needs a GPU": both(
        write("more/config.pbtxt", config("more", "tensorrt").replace("KIND_CPU", "KIND_GPU")), write("more/1/model.plan")
    ),
    "a model of several devices": both(
        write("more/config.pbtxt", config("more", "pytorch").replace("KIND_CPU", "KIND_MODEL")), write("more/1/model.pt")
    ),
    "a saved model, which is a folder": both(
        write("more/config.pbtxt", config("more", "tensorflow")), write("more/1/model.savedmodel/saved_model.pb")
    ),
}  # fmt: skip

SERVING = {
    "a reshape": both(edit(PICKER, "dims: [ -1 ]", "dims: [ 3 ] reshape { shape: [ 1, 3 ] }")),
    "a reshape of free sizes": edit(PICKER, "dims: [ -1 ]", "dims: [ -1 ] reshape { shape: [ -1, 1 ] }"),
    "a reshape to a scalar": edit(PICKER, "TYPE_INT64\n    dims: [ 1 ]", "TYPE_INT64\n    dims: [ 1 ] reshape { }"),
    "ragged batches": edit(PICKER, "dims: [ -1 ]", "dims: [ -1 ] allow_ragged_batch: true"),
    "priorities": edit(READER, "max_queue", "priority_levels: 2\n  default_priority_level: 1\n  priority_queue_policy { key: 2 value { max_queue_size: 4 } }\n  max_queue"),
    "a sequence control that is an input too": append(PICKER, 'sequence_batching { control_input [ { name: "SCORES" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ] }\n'),
    "sequences": append(PICKER, 'sequence_batching { max_sequence_idle_microseconds: 5000000 direct {} control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] }, { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ] }\n'),
    "a control that the code reads": both(
        append(PICKER, 'sequence_batching { control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ] }\n'),
        edit(PICKER_PY, "            best =", '            pb_utils.get_input_tensor_by_name(request, "START")\n            best ='),
    ),
    "a warm-up from a file": both(edit(READER, "zero_data: true", 'input_data_file: "text"'), write("reader/warmup/text", b"\1\0\0\0a")),
    "two instance groups": edit(PICKER, GROUP, 'instance_group [ { name: "a" count: 1 kind: KIND_CPU }, { name: "b" count: 2 kind: KIND_AUTO } ]\n'),
    "a cache": append(RANKER, "response_cache { enable: true }\n"),
}  # fmt: skip

PYTHON = {
    "Latin-1 in a comment": lambda root: (root / READER_PY).write_bytes((root / READER_PY).read_bytes() + "# caf\xe9\n".encode("latin-1")),
    "Latin-1 that is declared": lambda root: (root / READER_PY).write_bytes(b"# -*- coding: latin-1 -*-\n" + (root / READER_PY).read_bytes() + "WORD = 'caf\xe9'\n".encode("latin-1")),
    "files that are written, guarded or a library's": edit(READER_PY, "        self.scale =", "        import zipfile\n        from pathlib import Path\n        open('log.txt', 'w').write('loaded')\n        Path('log.txt').open(mode='a').write('loaded')\n        try:\n            self.words = open('words.txt').read()\n        except Exception:\n            self.words = ''\n        zipfile.ZipFile(Path(__file__)).open('words.txt')\n        self.scale ="),
    "a path that a caller gives": append("reader/1/features.py", "\n\ndef read(path):\n    return open(path).read()\n\n\ndef words(folder):\n    path = 'words.txt'\n    return read(folder / path)\n"),
    "execute that may return": edit(READER_PY, EXECUTE, "        try:\n            return [self.answer(request) for request in requests]\n        except KeyError:\n            raise ValueError\n"),
    "an asynchronous execute": python("class TritonPythonModel:\n    async def execute(self, requests):\n        return [await self.answer(request) for request in requests]\n\n    async def answer(self, request):\n        x = " + INPUT + "\n        return " + RESPONSE + "\n"),
    "a class that inherits execute": both(
        edit(READER_PY, "from features", "from base_model import Base\nfrom features"),
        edit(READER_PY, "class TritonPythonModel:", "class TritonPythonModel(Base):"),
        edit(READER_PY, "    def execute(self, requests):\n" + EXECUTE + "\n", ""),
        write("reader/1/base_model.py", "class Base:\n    def execute(self, requests):\n" + EXECUTE),
    ),
    "a class that inherits from a package": python("from abc import ABC\nfrom unittest import TestCase\n\n\nclass TritonPythonModel(TestCase, ABC):\n    pass\n"),
    "a class from another module": both(
        write("more/config.pbtxt", config("more")),
        write("more/1/model.py", "from parts.model import Model as TritonPythonModel  # noqa: F401\n"),
        write("more/1/parts/model.py", PYTHON_HEAD + "from . import sizes\n\n\n" + class_with("return [self.one(request) for request in requests]").replace("TritonPythonModel", "Model") + "\n    def one(self, request):\n        return pb_utils.InferenceResponse([pb_utils.Tensor(\"Y\", np.zeros((1, sizes.WIDTH), np.float32))])\n"),
        write("more/1/parts/sizes.py", "WIDTH = 4\n"),
    ),
    "execute by another name": edit(READER_PY, "    def answer", "    def run(self, requests):\n" + EXECUTE + "\n    execute = run\n\n    def answer"),
    "execute that is set later": both(
        edit(READER_PY, "    def execute(self, requests):\n" + EXECUTE, "    pass\n"),
        append(READER_PY, "\n\nTritonPythonModel.execute = lambda self, requests: [self.answer(each) for each in requests]\n"),
    ),
    "execute that the instance gets": both(
        edit(READER_PY, "    def execute(self", "    def run(self"), edit(READER_PY, "        self.scale =", "        self.execute = self.run\n        self.scale =")
    ),
    "inputs that auto_complete_config repeats": edit(READER_PY, "class TritonPythonModel:\n", 'class TritonPythonModel:\n    @staticmethod\n    def auto_complete_config(config):\n        for each in [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]}]:\n            config.add_input(each)\n        return config\n\n'),
    "a tensor that is no output": edit(READER_PY, "        tensor =", '        scratch = pb_utils.Tensor("scratch", rows)\n        rows = scratch.as_numpy() + pb_utils.Tensor("zero", rows * 0).as_numpy()\n        tensor ='),
    "a model without inputs": both(
        write("more/config.pbtxt", config("more", batch=0).replace('input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]\n', "")),
        write("more/1/model.py", PYTHON_HEAD + class_with("return [pb_utils.InferenceResponse([pb_utils.Tensor('Y', np.zeros(4, np.float32))]) for _ in requests]")),
    ),
    "a response that is sent and ends": edit(READER_PY, EXECUTE, "        for request in requests:\n            request.get_response_sender().send(self.answer(request), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)\n"),
    "a class that is made": both(write("more/config.pbtxt", config("more")), write("more/1/model.py", "TritonPythonModel = type('TritonPythonModel', (), {})\n")),
    "a relative import": edit(READER_PY, "from features", "from .features"),
    "a helper in the model's folder": lambda root: (root / "reader/1/features.py").rename(root / "reader/features.py"),
    "a helper without __init__": both(write("reader/1/tools/text.py", "def clean(text):\n    return text\n"), edit(READER_PY, "from features", "from tools.text import clean\nfrom features")),
    "a helper that makes its names": both(write("reader/1/features.py", "globals().update(WIDTH=4, features=str)\n")),
    "imports that may fail": edit(READER_PY, "import json\n", "import json\n\ntry:\n    import cupy_of_tomorrow as cp\nexcept ImportError:\n    cp = None\n"),
    "imports for types alone": edit(READER_PY, "import json\n", "import json\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import torch_of_tomorrow\n"),
    "imports of an environment of its own": both(write("reader/env.tar.gz"), edit(READER_PY, "import json\n", "import json\nimport torch_of_tomorrow\n"), append(READER, 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n')),
    "names that are computed": python("class TritonPythonModel:\n    def initialize(self, args):\n        self.names = [f\"X{number}\" for number in range(2)]\n\n    def execute(self, requests):\n        responses = []\n        for request in requests:\n            for name in self.names:\n                pb_utils.get_input_tensor_by_name(request, name)\n            pb_utils.get_input_tensor_by_name(request, 'IN' + 'PUT')\n            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self.names[0], np.zeros(1, np.float32))]))\n        return responses\n"),
    "names from the config": python("import json\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        self.outputs = [each['name'] for each in json.loads(args['model_config'])['output']]\n\n    def execute(self, requests):\n        return [pb_utils.InferenceResponse([pb_utils.Tensor(name, np.zeros((1, 4), np.float32)) for name in self.outputs]) for _ in requests]\n"),
    "a type from the config": python("class TritonPythonModel:\n    def initialize(self, args):\n        self.dtype = pb_utils.triton_string_to_numpy('TYPE_FP32')\n\n    def execute(self, requests):\n        return [pb_utils.InferenceResponse([pb_utils.Tensor('Y', np.zeros((1, 4)).astype(self.dtype))]) for _ in requests]\n"),
    "names behind functions": python("def read(request, name):\n    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()\n\n\ndef tensor(name, x):\n    return pb_utils.Tensor(name, x)\n\n\n" + class_with("return [pb_utils.InferenceResponse([tensor('Y', read(request, 'X'))]) for request in requests]")),
    "names in loops": python("NAMES = {'X': 'Y'}\n\n\n" + class_with("out = []", "for request in requests:", "    tensors = []", "    for source, target in NAMES.items():", "        x = pb_utils.get_input_tensor_by_name(request, source)", "        tensors.append(pb_utils.Tensor(target, x.as_numpy()))", "    out.append(pb_utils.InferenceResponse(tensors))", "return out")),
    "an early return": python(class_with("if not requests:", "    return []", "out = []", "for request in requests:", f"    x = {INPUT}", f"    out.append({RESPONSE})", "return out")),
    "one answer for all": python(class_with("x = np.zeros((1, 4), np.float32)", f"return [{RESPONSE}] * len(requests)")),
    "one answer where requests are not joined": python(class_with("request = requests[0]", f"x = {INPUT}", f"return [{RESPONSE}]")),
    "a loop with a way out": edit(READER_PY, "        self.scale =", "        while True:\n            if config:\n                break\n        self.scale ="),
    "a loop in a thread": edit(READER_PY, "        self.scale =", "        def watch():\n            while True:\n                pass\n\n        self.watch = watch\n        self.scale ="),
    "errors as responses": python(class_with("error = pb_utils.TritonError('no')", "return [pb_utils.InferenceResponse(error=error) for _ in requests]")),
    "arguments with defaults": edit(READER_PY, "def initialize(self, args):", "def initialize(self, args, extra=None, *more, flag=True, **rest):"),
    "texts that look like paths": edit(READER_PY, "        self.scale =", '        self.routes = ["/v2/models/reader", "/", "/opt/tritonserver/lib", "a/b", "/usr/bin/env", "C:", "s3://bucket/key"]\n        self.scale ='),
    "a path in the documentation": edit(READER_PY, '"""Makes features of a text."""', '"""Makes features; trained in /home/alice/x."""'),
    "arrays without pickles": edit(READER_PY, "        self.scale =", '        self.table = lambda: np.load(args["table"], allow_pickle=False)\n        self.scale ='),
    "files that are there, by every way to them": both(
        write("reader/1/data/words.txt"),
        edit(READER_PY, "import json\n", "import json\nimport os\nfrom pathlib import Path\n"),
        edit(READER_PY, "        self.scale =", '        folder = Path(args["model_repository"]) / args["model_version"]\n        self.words = (folder / "data" / "words.txt").read_text()\n        self.words += open(os.path.join(os.path.dirname(__file__), "data/words.txt")).read()\n        self.words += Path(f"{args[\'model_repository\']}/1/data/words.txt").read_text()\n        self.scale ='),
    ),
    "a file that may be missing": edit(READER_PY, "        self.scale =", '        from pathlib import Path\n        path = Path(__file__).with_name("words.txt")\n        self.words = path.read_text() if path.exists() else ""\n        self.scale ='),
    "a parameter with a default": edit(READER_PY, "        self.scale =", '        self.depth = config["parameters"].get("depth", {})\n        if "width" in config["parameters"]:\n            self.depth = config["parameters"]["width"]\n        try:\n            self.mode = config["parameters"]["mode"]\n        except KeyError:\n            self.mode = ""\n        self.scale ='),
    "names from everywhere": edit(READER_PY, "        self.scale =", "        global LATER\n        LATER = [x for x in range(3) if (y := x)]\n        self.names = [__file__, __name__, LATER, y, ValueError]\n        self.first: Unknown = None\n        self.scale ="),
    "a method of its own that is alike": edit(READER_PY, "    def execute", "    def is_read(self):\n        return True\n\n    def ready(self):\n        return self.is_read()\n\n    def execute"),
    "a script's own end": append(READER_PY, '\n\nif __name__ == "__main__":\n    print(TritonPythonModel)\n'),
    "attributes that are set out of sight": both(
        edit(READER_PY, "from features import WIDTH, features", "from features import WIDTH, features, prepare"),
        append("reader/1/features.py", "\n\ndef prepare(model):\n    model.depth = 3\n"),
        edit(READER_PY, "        self.scale =", "        prepare(self)\n        self.scale = self.depth *"),
    ),
    "attributes of the class": edit(READER_PY, "class TritonPythonModel:\n", "class TritonPythonModel:\n    depth: int = 3\n    width = 4\n\n    def finalize(self):\n        self.width += self.depth\n        del self.scale\n\n"),
    "responses that are added elsewhere": edit(PICKER_PY, "        responses = []\n", "        responses = []\n        add = responses.append\n"),
    "an output through from_dlpack": edit(READER_PY, 'pb_utils.Tensor("FEATURES", rows.astype(np.float32))', 'pb_utils.Tensor.from_dlpack("FEATURES", rows)'),
}  # fmt: skip

ENSEMBLES = {
    "an input that is an output too": both(
        edit(RANKER, '  {\n    name: "SCORES"', '  {\n    name: "TEXT"\n    data_type: TYPE_STRING\n    dims: [ 1 ]\n  },\n  {\n    name: "SCORES"')
    ),
    "a model that is two steps": both(
        edit(RANKER, '  {\n    name: "SCORES"', '  {\n    name: "LABEL"\n    data_type: TYPE_STRING\n    dims: [ 1 ]\n  },\n  {\n    name: "SCORES"'),
        edit(
            RANKER,
            '    {\n      model_name: "scorer"',
            '    {\n      model_name: "picker"\n      model_version: 1\n      input_map { key: "SCORES" value: "features" }\n      output_map { key: "LABEL" value: "LABEL" }\n    },\n    {\n      model_name: "scorer"',
        ),
    ),
    "steps in another order": lambda root: _reverse_steps(root / RANKER),
    "a pinned version beside a newer one": lambda root: shutil.copytree(root / "reader/1", root / "reader/2"),
    "a pinned version that the latest two hold": both(edit(READER, "version_policy: { all {} }", "version_policy: { latest { num_versions: 2 } }"), lambda root: shutil.copytree(root / "reader/1", root / "reader/2")),
    "an ensemble in an ensemble": lambda root: _nest(root),
    "an ensemble that does not batch": both(
        edit(RANKER, "max_batch_size: 8", "max_batch_size: 0"),
        edit(RANKER, "TYPE_STRING\n    dims: [ 1 ]", "TYPE_STRING\n    dims: [ -1, 1 ]"),
        edit(RANKER, "TYPE_INT64\n    dims: [ 1 ]", "TYPE_INT64\n    dims: [ -1, 1 ]"),
        edit(RANKER, "dims: [ 3 ]", "dims: [ -1, 3 ]"),
        write("ranker/samples/word.json", '{"inputs": {"TEXT": [["a"], ["b"]]}}'),
    ),
    "a step that takes whole batches": both(
        edit(PICKER, "max_batch_size: 8", "max_batch_size: 0"),
        edit(PICKER, "dims: [ -1 ]", "dims: [ -1, 3 ]"),
        edit(PICKER, "TYPE_INT64\n    dims: [ 1 ]", "TYPE_INT64\n    dims: [ -1, 1 ]"),
    ),
}  # fmt: skip

ONNX = {
    "external data": external_onnx("weights.bin", b"\0" * 48),
    "a batch that is free by name": lambda root: save_onnx(root / "scorer/1/model.onnx", rows="batch_size"),
    "an input narrower than the model": lambda root: save_onnx(
        root / "scorer/1/model.onnx", inputs=(("FEATURES", "FLOAT", ("N", "width")),)
    ),
    "no batching": both(
        edit(SCORER, "max_batch_size: 8", "max_batch_size: 0"),
        edit(SCORER, "dims: [ 4 ]", "dims: [ -1, 4 ]"),
        edit(SCORER, "dims: [ 3 ]", "dims: [ -1, 3 ]"),
    ),
    "the newest opset that most runtimes know": lambda root: save_onnx(root / "scorer/1/model.onnx", opset=21, ir_version=10),
}  # fmt: skip

SAMPLES = {
    "a batch": write("ranker/samples/word.json", '{"inputs": {"TEXT": [["a"], ["b"]]}, "outputs": {"BEST": [[1], [2]]}}'),
    "one value": write("ranker/samples/word.json", '{"summary": "x", "inputs": {"TEXT": "a"}, "tolerance": {"absolute": 0.1}}'),
    "the protocol's form": write(
        "ranker/samples/word.json",
        '{"id": "1", "inputs": [{"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]}',
    ),
    "an optional input": both(
        write("reader/samples/both.json", '{"inputs": {"TEXT": ["a"], "BOOST": [0.5]}}'),
        write("reader/samples/one.json", '{"inputs": {"TEXT": ["a"]}}'),
        write("reader/samples/.gitkeep"),
    ),
}  # fmt: skip

CASES = WRITING | SERVING | PYTHON | ENSEMBLES | ONNX | SAMPLES


def _reverse_steps(path: Path) -> None:
    head, _, rest = path.read_text().partition("  step [\n")
    steps = rest.removesuffix("    }\n  ]\n}\n").split("    },\n")
    path.write_text(head + "  step [\n" + "    },\n".join(reversed(steps)) + "    }\n  ]\n}\n")


def _nest(root: Path) -> None:
    text = (root / RANKER).read_text()
    outer = text[: text.index("ensemble_scheduling")].replace('name: "ranker"', 'name: "outer"', 1)
    write("outer/1/.keep")(root)
    write(
        "outer/config.pbtxt",
        outer + 'ensemble_scheduling { step [ { model_name: "ranker" model_version: 1 '
        'input_map { key: "TEXT" value: "TEXT" } output_map { key: "BEST" value: "BEST" } '
        'output_map { key: "SCORES" value: "SCORES" } } ] }\n',
    )(root)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("sound") / "models")


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_nothing_is_found(name: str, sound: Path, tmp_path: Path) -> None:
    models = copy_base(sound, tmp_path / "models")
    change: Callable[[Path], object] = CASES[name]
    change(models)
    if (models / "more").is_dir() and not (models / "more/1").is_dir():
        write("more/1/model.py", PYTHON_HEAD + class_with("return [str(request) for request in requests]"))(models)
    named = {entry.name for entry in models.iterdir()}
    assert [str(finding) for finding in check_models(models, sorted(named | set(MODELS)))] == []


@pytest.mark.parametrize("directory", ["tests/repositories/small", "bench/models"])
def test_the_repositories_of_the_project_are_clean(directory: str) -> None:
    repository = Repository(ROOT / directory)
    assert [str(finding) for finding in check_closure(repository, repository.names())] == []


def test_the_examples_are_clean() -> None:
    judged = judge_models(Repository(examples.MODELS), examples.ENSEMBLES)
    assert [str(finding) for finding in judged.findings] == []
    assert {finding.kind for finding, _ in judged.accepted} == {"decoupled"}, "the playlist is meant to stream"


def test_open_steps_and_a_model_that_streams_are_all_that_is_found_in_the_gateways_models() -> None:
    repository = Repository(ROOT / "tests/web/models")
    found = {finding.kind for finding in check_closure(repository, repository.names())}
    assert found == {"step-unpinned", "decoupled"}


def test_the_broken_repository_of_the_fleets_tests_is_found_broken_where_its_files_show_it() -> None:
    repository = Repository(ROOT / "tests/repositories/broken")
    found = {(finding.model, finding.kind) for finding in check_closure(repository, repository.names())}
    assert found == {
        ("no_class", "python-class"),
        ("no_model_py", "artefact-missing"),
    }
