"""ECR's scan of a pushed image: its state, and its findings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tidegate.errors import TidegateError

from infra.settings import Settings

SCAN_TIMEOUT_S = 900.0
SCAN_LOOK_S = 5.0
SCANNED = ("COMPLETE", "ACTIVE")
"""States of a scan that has findings: of a basic scan, and of an enhanced one."""

SCANNING = ("PENDING", "IN_PROGRESS")

_SCAN_AGAIN = "scan it again with `aws ecr start-image-scan --repository-name {repository} --image-id imageTag={tag}`"
REMEDIES = {
    "FAILED": _SCAN_AGAIN,
    "FINDINGS_UNAVAILABLE": _SCAN_AGAIN,
    "LIMIT_EXCEEDED": "ECR scans an image once in 24 hours: try again later",
    "SCAN_ELIGIBILITY_EXPIRED": "Amazon Inspector's re-scan duration is over: lengthen it there, and pull the image once",
    "IMAGE_ARCHIVED": "restore it with `aws ecr update-image-storage-class`",
    "UNSUPPORTED_IMAGE": "ECR cannot read its operating system or the kind of its manifest",
    "IMAGE_SIZE_EXCEEDED": "it is larger than ECR scans",
}
"""The remedy for each state in which an image has no findings, and in which waiting does not help."""


class ScanError(TidegateError):
    """The result of an image's scan is unknown."""


def refused_findings(
    ecr: Any, repository: str, tag: str, settings: Settings, *, wait_s: float = SCAN_TIMEOUT_S
) -> Iterator[str]:
    """Return, in words, the findings of ECR's scan that forbid the deployment of an image.

    Raises:
        ScanError: the image cannot be scanned, and `images.unscanned` does not accept that; or the scan did not end within
            `wait_s` seconds.
    """
    if not _is_scanned(ecr, repository, tag, settings, wait_s):
        return
    accepted = settings.images.accepted
    image = {"imageTag": tag}
    for page in ecr.get_paginator("describe_image_scan_findings").paginate(repositoryName=repository, imageId=image):
        found = page.get("imageScanFindings", {})
        for each in (*found.get("findings", ()), *found.get("enhancedFindings", ())):
            details = each.get("packageVulnerabilityDetails", {})
            name = each.get("name") or details.get("vulnerabilityId") or each.get("title", "a finding")
            if each["severity"] in settings.images.refused_severities and name not in accepted:
                yield f"{repository}:{tag}: {each['severity']} {name}"


def _is_scanned(ecr: Any, repository: str, tag: str, settings: Settings, wait_s: float) -> bool:
    """Wait for the scan. Return False if the image cannot be scanned and the settings accept that."""
    deadline = time.monotonic() + wait_s
    name = repository.rpartition("/")[2]
    while True:
        try:
            status = ecr.describe_image_scan_findings(repositoryName=repository, imageId={"imageTag": tag})[
                "imageScanStatus"
            ]
        except ecr.exceptions.ScanNotFoundException:
            status = {"status": "PENDING"}
        state = status["status"]
        if state in SCANNED:
            return True
        if state not in SCANNING:
            if name in settings.images.unscanned:
                return False
            said = f", {status['description']}" if status.get("description") else ""
            remedy = REMEDIES.get(state, "see ECR's documentation of this state").format(repository=repository, tag=tag)
            raise ScanError(
                f"{repository}:{tag} cannot be scanned ({state}{said}): {remedy}; or accept it unscanned, with the reason, "
                f"in the setting images.unscanned.{name}"
            )
        if time.monotonic() >= deadline:
            raise ScanError(
                f"the scan of {repository}:{tag} has not ended ({state}): try again later, or, if none was started, "
                + _SCAN_AGAIN.format(repository=repository, tag=tag)
            )
        time.sleep(min(SCAN_LOOK_S, wait_s))
