"""`python -m infra images`: build the images of a stage and push them to its own repositories."""

from __future__ import annotations

import base64
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import TidegateError

from infra.images import ROOT, Image

ENGINES = ("docker", "podman", "finch")

Say = Callable[[str], None]


class ImageError(TidegateError):
    """An image could not be built or pushed."""


@dataclass(frozen=True, slots=True)
class Repositories:
    """The repositories of a stage: at `registry` (its host) in `region`."""

    stage: str
    registry: str
    region: str

    def name(self, image: Image) -> str:
        """The repository of an image."""
        return f"tidegate-{self.stage}/{image.name}"

    def address(self, image: Image, tag: str) -> str:
        """An image as an engine and the templates name it."""
        return f"{self.registry}/{self.name(image)}:{tag}"


def registry_of(account: str, region: str) -> str:
    """The host of the account's own registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com"


def find_engine(named: str = "") -> str:
    """Return the container engine on the path: the named one, else the first of `ENGINES`.

    Raises:
        ImageError: there is none, or its name is unknown.
    """
    if named and named not in ENGINES:
        raise ImageError(f"{named!r} is not a known container engine: name one of {', '.join(ENGINES)}")
    for engine in (named,) if named else ENGINES:
        if shutil.which(engine):
            return engine
    wanted = named or ", ".join(ENGINES[:-1]) + " or " + ENGINES[-1]
    raise ImageError(f"no container engine: install {wanted}, or put it on the PATH")


def login_command(engine: str, repositories: Repositories) -> list[str]:
    """Return the command that logs in to ECR with the password on standard input."""
    return [engine, "login", "--username", "AWS", "--password-stdin", repositories.registry]


def build_command(engine: str, image: Image, address: str) -> list[str]:
    """Return the command that builds an image in the root of the project."""
    # What docker adds about a build's provenance makes an index of the image, which ECR's basic scan does not look into.
    only_the_image = ["--provenance=false"] if engine == "docker" else []
    arguments = [part for name, value in image.arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return [
        *(engine, "build", *only_the_image, "--platform", image.platform, "--file", image.dockerfile),
        *(*arguments, "--tag", address, "."),
    ]


def push_command(engine: str, address: str) -> list[str]:
    """Return the command that pushes an image."""
    return [engine, "push", address]


def dry_run(engine: str, images: Sequence[Image], repositories: Repositories) -> Iterator[str]:
    """Return the commands that would build and push images in the root of the project, with the names of variables.

    An image whose tag the settings pin to another than these sources make is not built: a comment says so.
    """
    password = f'aws ecr get-login-password --region "{repositories.region}"'
    yield f"{password} | {_line(login_command(engine, repositories))}"
    for image in images:
        address = repositories.address(image, image.tag)
        if image.tag != image.built_tag:
            yield f"# {address} is not built: {image.pin} pins it, so it must have been pushed before"
            continue
        yield _line(build_command(engine, image, address))
        yield _line(push_command(engine, address))


def push_images(engine: str, images: Sequence[Image], repositories: Repositories, session: Any, say: Say) -> None:
    """Build and push the images that are missing in their repositories.

    Raises:
        ImageError: a repository is missing, the engine failed, or a pinned tag is not one that these sources make.
    """
    ecr = session.client("ecr")
    there = {image.name: is_pushed(ecr, repositories.name(image), image.tag) for image in images}
    for image in images:
        if image.tag != image.built_tag and not there[image.name]:
            raise ImageError(
                f"{image.pin} pins {image.name}'s image to {image.tag}, which was never pushed, and these sources make "
                f"{image.built_tag}: unset the tag, or push from the sources that it was made of"
            )
    wanted = [image for image in images if not there[image.name]]
    if wanted:
        _run(login_command(engine, repositories), _password(ecr))
    for image in images:
        address = repositories.address(image, image.tag)
        if image not in wanted:
            say(f"{address}: is there")
            continue
        _run(build_command(engine, image, address))
        _run(push_command(engine, address))
        say(f"{address}: pushed")


def is_pushed(ecr: Any, repository: str, tag: str) -> bool:
    """Return whether a repository has a tag.

    Raises:
        ImageError: there is no such repository.
    """
    try:
        ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.RepositoryNotFoundException as error:
        stage = repository.partition("/")[0].removeprefix("tidegate-")
        raise ImageError(
            f"the image repository {repository}: deploy it first with `make infra STAGE={stage} STACKS='Storage Network'`"
        ) from error
    except ecr.exceptions.ImageNotFoundException:
        return False
    return True


def _password(ecr: Any) -> bytes:
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    return base64.b64decode(token).partition(b":")[2]


def _line(command: Sequence[str]) -> str:
    """Return a command as a line of a shell, which expands variables."""
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in command)


def _run(command: Sequence[str], given: bytes | None = None) -> None:
    done = subprocess.run(list(command), input=given, cwd=ROOT, check=False)  # noqa: S603  # our own command
    if done.returncode:
        raise ImageError(f"`{shlex.join(command)}` failed with exit code {done.returncode}")
