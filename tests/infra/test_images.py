"""`python -m infra images`: tags that name their content, the commands that are run, and what a scan refuses. No container
engine runs here: a script of the test takes its place on the PATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tidegate.bootstrap.compiled import compiled_folder

from infra import image_push, image_scans, images
from infra.account import preflight
from infra.image_push import ENGINES, ImageError, Repositories, find_engine, push_images
from infra.image_scans import REMEDIES, SCANNED, SCANNING, ScanError, refused_findings
from infra.images import Image, image_tags, images_of
from infra.settings import Settings
from tests.infra.conftest import Made
from tests.infra.deployed import AWS_VARIABLES
from tests.infra.setting_values import ENVOY, JWT
from tests.infra.test_templates import container, text_of
from tests.support.aws import local_server
from tests.support.stack import ROOT

SETTINGS = Settings.model_validate({})
WITH_ENVOY = Settings.model_validate({"data_plane": "envoy", "envoy": ENVOY, "authorizer": JWT, "nat_gateways": 1})
MANIFEST = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}


@pytest.fixture
def session() -> Iterator[boto3.Session]:
    """An account on this machine, with the repositories of stage `dev`."""
    with local_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**AWS_VARIABLES, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        session = boto3.Session()
        for name in ("triton", "agent"):
            session.client("ecr").create_repository(
                repositoryName=f"tidegate-dev/{name}", imageScanningConfiguration={"scanOnPush": True}
            )
        yield session


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts an engine that writes down how it is called on an otherwise empty PATH; the file that it writes to."""
    log = tmp_path / "calls"

    def make(name: str, fails: str = "nothing") -> Path:
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f'#!/bin/sh\n[ "$1" = login ] && password="$(/bin/cat)"\necho "$@ $password" >> {log}\n[ "$1" != {fails} ]\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent))
        return log

    return make


def repositories() -> Repositories:
    return Repositories("dev", image_push.registry_of("123456789012", "us-east-1"), "us-east-1")


def copy_of_the_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tags follow from a copy of the sources, which a test may change."""
    for image in images_of(WITH_ENVOY):
        for path in image.files():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    monkeypatch.setattr(images, "ROOT", folder)


def test_equal_sources_give_equal_tags_and_every_change_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image_tags(WITH_ENVOY)
    assert first["triton"].startswith("24.10-py3-")
    copy_of_the_sources(tmp_path, monkeypatch)
    assert image_tags(WITH_ENVOY) == first, "wherever the project is, and whenever it was checked out"
    (tmp_path / "functions/tidegate/__pycache__").mkdir(exist_ok=True)
    (tmp_path / "functions/tidegate/__pycache__/a.pyc").write_bytes(b"compiled")
    assert image_tags(WITH_ENVOY) == first
    for names, path in (
        ({"agent", "envoy"}, "functions/tidegate/__init__.py"),
        ({"agent", "envoy"}, "requirements/agent.lock"),
        ({"agent"}, "infra/agent/Dockerfile"),
        ({"envoy"}, "requirements/envoy.lock"),
        ({"envoy"}, "requirements/compiling.lock"),
        ({"envoy"}, "assets/compiling.py"),
        ({"envoy"}, "infra/envoy/Dockerfile"),
        ({"triton"}, "requirements/triton.lock"),
        ({"triton"}, "infra/triton/Dockerfile"),
    ):
        before = image_tags(WITH_ENVOY)
        with (tmp_path / path).open("a") as file:
            file.write("# changed\n")
        changed = {each for each, tag in image_tags(WITH_ENVOY).items() if tag != before[each]}
        assert changed == names, path
    other = Settings.model_validate({"triton": {"source_tag": "25.01-py3", "agent_tag": "1"}})
    assert image_tags(other)["triton"].startswith("25.01-py3-")
    assert image_tags(other)["agent"] == "1"


def test_the_build_sees_what_the_tag_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert let_through == {source for image in images_of(WITH_ENVOY) for source in image.sources}
    for image in images_of(WITH_ENVOY):
        text = (ROOT / image.dockerfile).read_text()
        copies = [line.split() for line in text.splitlines() if line.startswith("COPY ")]
        copied = {source for _, source, *_ in copies if not source.startswith("--from=")}
        assert copied == set(image.sources), image.name


def test_the_stacks_run_the_images_that_are_pushed(project: Made) -> None:
    tags = image_tags(SETTINGS)
    for name in ("triton", "agent"):
        assert text_of(container(project.assembly, name)["Image"]).endswith(f":{tags[name]}")
    (job,) = project.assembly.resources("AWS::CodeBuild::Project")
    assert text_of(job.properties["Environment"]["Image"]).endswith(f":{tags['agent']}")
    for repository in project.assembly.resources("AWS::ECR::Repository"):
        assert repository.properties["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert repository.properties["ImageTagMutability"] == "IMMUTABLE"


def dry_run(path: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra", "images", "--dry-run", *arguments],
        cwd=ROOT,
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_dry_run_prints_the_commands_that_a_run_runs(session: Any, engine: Callable[[str], Path]) -> None:
    log = engine("podman")
    done = dry_run(os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert not log.exists(), "nothing was run"
    push_images(find_engine(), images_of(SETTINGS), repositories(), session, lambda _: None)
    ran = [line.strip() for line in log.read_text().splitlines()]
    account, login, *rest = done.stdout.splitlines()
    assert account.startswith("AWS_ACCOUNT_ID=")
    filled = [
        line.replace("$AWS_ACCOUNT_ID", "123456789012").replace("$AWS_REGION", "us-east-1").replace('"', "")
        for line in (login.partition("| ")[2], *rest)
    ]
    assert [f"podman {line}" for line in ran[1:]] == filled[1:]
    assert f"podman {ran[0]}".startswith(filled[0]), "and the password, which comes on standard input"
    assert len(ran) == 5
    assert "--platform linux/amd64 --file infra/agent/Dockerfile" in ran[3]


def test_the_first_engine_that_is_there_is_taken(engine: Callable[[str], Path]) -> None:
    engine("finch")
    assert find_engine() == "finch"
    engine("podman")
    assert find_engine() == "podman"
    with pytest.raises(ImageError, match="install docker"):
        find_engine("docker")
    with pytest.raises(ImageError, match="'ls' is not a known container engine: name one of docker, podman"):
        find_engine("ls")


def test_dockers_build_makes_an_image_that_the_scan_looks_into() -> None:
    for name in ENGINES:
        command = image_push.build_command(name, images_of(SETTINGS)[0], "an/address:t")
        assert ("--provenance=false" in command) == (name == "docker")


def test_envoys_image_is_built_for_the_stages_architecture() -> None:
    for architecture, platform, prefix in (("arm64", "linux/arm64", "arm64-"), ("x86_64", "linux/amd64", "x86-64-")):
        settings = WITH_ENVOY.model_copy(update={"architecture": architecture})
        *others, envoy = images_of(settings)
        command = image_push.build_command("podman", envoy, "an/address:t")
        assert f"--platform {platform} --file infra/envoy/Dockerfile" in " ".join(command)
        assert envoy.tag.startswith(prefix)
        assert {each.platform for each in others} == {"linux/amd64"}, "instances are not Arm"
    assert [each.name for each in images_of(SETTINGS)] == ["triton", "agent"]


def test_envoys_image_has_no_compiler_and_the_modules_that_a_stage_with_one_compiled(tmp_path: Path) -> None:
    """The build's steps without a container: each stage has only what its `COPY` lines name."""
    text = (ROOT / "infra/envoy/Dockerfile").read_text()
    stages = [stage.splitlines() for stage in text.split("\nFROM ")[1:]]
    assert [stage[0] for stage in stages] == ["python:3.13 AS compiled", "python:3.13-slim"], "of one Python"
    assert "COPY --from=compiled /usr/local/share/tidegate /usr/local/share/tidegate" in stages[1]
    assert "requirements/compiling.lock" not in "".join(stages[1])
    found = []
    for number, stage in enumerate(stages):
        folder = tmp_path / str(number)
        for _, source, target in (line.split() for line in stage if re.match("COPY [^-]", line)):
            copy = folder / (Path(source).name if target == "." else target)
            copy.parent.mkdir(parents=True, exist_ok=True)
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, copy, ignore=leave) if (ROOT / source).is_dir() else shutil.copy(
                ROOT / source, copy
            )
        found.append(compiled_folder(folder / "tidegate", Path("/usr/local")))
    assert found[0] == found[1], "the second stage looks where the first compiled to"
    asked = [sys.executable, "-m", "assets.compiling", "--help"]
    done = subprocess.run(asked, cwd=tmp_path / "0", env={}, capture_output=True, text=True, check=False)
    assert "Compile the gateway's modules" in done.stdout, done.stderr


IMPORTED = """
import importlib, re, sys
from importlib.metadata import packages_distributions
for name in sys.argv[1:]:
    importlib.import_module(name)
found = packages_distributions()
names = {each for module in sys.modules for each in found.get(module.partition(".")[0], ())}
print(*sorted(re.sub("[-_.]+", "-", each).lower() for each in names))
"""

AGENTS = ("tidegate.bootstrap.agent", "tidegate.cli.publish")
ENVOYS = ("tidegate.bootstrap.envoy", "tidegate.bootstrap.resolvers", "tidegate.bootstrap.resolver_process")


@pytest.mark.parametrize(("image", "modules"), [("agent", AGENTS), ("envoy", ENVOYS)])
def test_an_image_has_every_package_that_its_processes_import(image: str, modules: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = [each for each in images_of(WITH_ENVOY) if each.name == image]
    locks = [each for each in built.sources if each.endswith(".lock") and "compiling" not in each]
    has = {name for lock in locks for name in pins(lock)}
    # The environment of the tests loads setuptools by itself.
    assert set(done.stdout.split()) - has <= {"tidegate", "setuptools"}


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock, and their versions; of one that has several by the version of Python, the last."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_agents_image_has_the_packages_of_the_functions_whose_code_it_runs() -> None:
    assert pins("requirements/control.lock").items() <= pins("requirements/agent.lock").items()


def test_the_compiler_of_the_image_is_the_one_of_the_tests() -> None:
    compilers, ours = pins("requirements/compiling.lock"), pins("requirements/dev.lock")
    assert {"mypy", "setuptools"} <= set(compilers)
    assert compilers.items() <= ours.items()


def test_a_dry_run_leaves_out_what_a_run_would_not_build(engine: Callable[[str], Path]) -> None:
    engine("podman")
    done = dry_run(os.environ["PATH"], TIDEGATE_INFRA_TRITON__IMAGE_TAG="released-in-may")
    assert done.returncode == 0, done.stderr
    triton = [line for line in done.stdout.splitlines() if "/triton:" in line]
    assert triton == [line for line in triton if line.startswith("# ")], "a comment alone"
    assert "released-in-may is not built: triton.image_tag pins it" in triton[0]
    assert "podman push" in done.stdout, "the agent's image"


def test_without_an_engine_one_line_says_so(tmp_path: Path) -> None:
    done = dry_run(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error: no container engine: install docker, podman or finch, or put it on the PATH\n"


def put(session: Any, image: Image) -> None:
    session.client("ecr").put_image(
        repositoryName=f"tidegate-dev/{image.name}", imageManifest=json.dumps(MANIFEST), imageTag=image.tag
    )


def test_an_image_that_is_there_is_not_built_again(session: Any, engine: Callable[[str], Path]) -> None:
    log, said = engine("docker"), list[str]()
    triton, agent = images_of(SETTINGS)
    put(session, triton)
    push_images("docker", (triton, agent), repositories(), session, said.append)
    assert "triton/Dockerfile" not in log.read_text()
    assert [line.rpartition(": ")[2] for line in said] == ["is there", "pushed"]
    log.unlink()
    put(session, agent)
    push_images("docker", (triton, agent), repositories(), session, said.append)
    assert not log.exists(), "not even a login"


def test_what_cannot_be_pushed_is_said_before_anything_is_built(session: Any, engine: Callable[[str], Path]) -> None:
    log = engine("docker")
    pinned = Settings.model_validate({"triton": {"agent_tag": "released-in-may"}})
    with pytest.raises(
        ImageError, match=r"triton\.agent_tag pins agent's image to released-in-may, which was never pushed"
    ):
        push_images("docker", images_of(pinned), repositories(), session, print)
    other = Repositories("staging", repositories().registry, "us-east-1")
    with pytest.raises(ImageError, match="make infra STAGE=staging STACKS='Storage Network'"):
        push_images("docker", images_of(SETTINGS), other, session, print)
    assert not log.exists()


@pytest.mark.parametrize("step", ["login", "build", "push"])
def test_an_engine_that_fails_ends_it(session: Any, engine: Callable[..., Path], step: str) -> None:
    log = engine("docker", step)
    with pytest.raises(ImageError, match=rf"`docker {step} .*failed with exit code 1"):
        push_images("docker", images_of(SETTINGS), repositories(), session, print)
    assert log.read_text().splitlines()[-1].startswith(step)


class Ecr:
    """ECR's answers about a scan, one after the other."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.exceptions = boto3.client("ecr", region_name="us-east-1").exceptions

    def describe_image_scan_findings(self, **_asked: Any) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def get_paginator(self, _name: str) -> Ecr:
        return self

    def paginate(self, **_asked: Any) -> list[dict[str, Any]]:
        return self.answers[-1:]


def scan(status: str, *findings: dict[str, Any]) -> dict[str, Any]:
    return {"imageScanStatus": {"status": status}, "imageScanFindings": {"findings": list(findings)}}


def found(ecr: Any, **images: Any) -> list[str]:
    settings = Settings.model_validate({"images": images})
    return list(refused_findings(ecr, "tidegate-dev/agent", "t", settings, wait_s=0.2))


def test_a_scan_that_found_what_the_settings_refuse_refuses_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_scans, "SCAN_LOOK_S", 0.01)
    critical, high = {"name": "CVE-1-1", "severity": "CRITICAL"}, {"name": "CVE-1-2", "severity": "HIGH"}
    done = scan("COMPLETE", critical, high)
    assert found(Ecr(scan("IN_PROGRESS"), done)) == ["tidegate-dev/agent:t: CRITICAL CVE-1-1"]
    assert len(found(Ecr(done), refused_severities=["CRITICAL", "HIGH"])) == 2
    reason = "the image never opens such a file"
    assert found(Ecr(done), accepted={"CVE-1-1": reason}) == []
    enhanced = {"severity": "CRITICAL", "packageVulnerabilityDetails": {"vulnerabilityId": "CVE-1-3"}}
    active = {"imageScanStatus": {"status": "ACTIVE"}, "imageScanFindings": {"enhancedFindings": [enhanced]}}
    assert found(Ecr(active)) == ["tidegate-dev/agent:t: CRITICAL CVE-1-3"]
    with pytest.raises(ScanError, match="has not ended"):
        found(Ecr(scan("IN_PROGRESS")))


def states_of_a_scan() -> list[str]:
    """Every state that ECR's own model has."""
    return list(boto3.client("ecr", region_name="us-east-1").meta.service_model.shape_for("ScanStatus").enum)


def test_every_state_without_findings_is_named_at_once_with_what_helps_and_can_be_accepted() -> None:
    assert set(states_of_a_scan()) == {*SCANNED, *SCANNING, *REMEDIES}
    for state in (*REMEDIES, "SOMETHING_NEW"):
        with pytest.raises(ScanError, match=rf"agent:t cannot be scanned \({state}\).* images\.unscanned\.agent$"):
            list(refused_findings(Ecr(scan(state)), "tidegate-dev/agent", "t", SETTINGS, wait_s=60))
        assert found(Ecr(scan(state)), unscanned={"agent": "the layers were scanned elsewhere"}) == []
        with pytest.raises(ScanError, match="cannot be scanned"):
            found(Ecr(scan(state)), unscanned={"triton": "the layers were scanned elsewhere"})


def test_a_deployment_asks_for_both_images_and_their_scans(session: Any) -> None:
    def missing() -> tuple[str, ...]:
        return preflight("dev", SETTINGS, ("Fleet",), 0, session).missing

    assert [line.partition(": run ")[2] for line in missing()] == ["`make images STAGE=dev`"] * 2
    for image in images_of(SETTINGS):
        put(session, image)
    assert all("has not ended" in line or "without refused findings" in line for line in missing())


def test_a_mirrored_image_is_scanned_as_the_others_are(session: Any) -> None:
    settings = Settings.model_validate({"triton": {"dcgm_exporter_tag": "4.2.0"}})

    def missing() -> str:
        return preflight("dev", settings, ("Fleet",), 0, session).missing[-1]

    ecr, repository = session.client("ecr"), "tidegate-dev/dcgm-exporter"
    ecr.create_repository(repositoryName=repository)
    assert "dcgm-exporter:4.2.0: pull nvcr.io/nvidia/k8s/dcgm-exporter and push it" in missing()
    ecr.put_image(repositoryName=repository, imageManifest=json.dumps(MANIFEST), imageTag="4.2.0")
    assert f"the scan of {repository}:4.2.0 has not ended" in missing()


def test_processes_of_envoys_image_find_the_package_wherever_they_run() -> None:
    """The command starts others with `python -P`: they import from PYTHONPATH, and not from the folder that they run in."""
    stage = (ROOT / "infra/envoy/Dockerfile").read_text().rpartition("\nFROM ")[2]
    (folder,) = re.findall(r"^WORKDIR (\S+)$", stage, re.MULTILINE)
    assert "\nCOPY functions/tidegate tidegate\n" in stage
    assert re.search(rf"^ENV (?:.* )?PYTHONPATH={re.escape(folder)}(?: |$)", stage, re.MULTILINE)
