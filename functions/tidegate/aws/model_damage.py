"""Finds pushed files that are missing or changed, from listings of the bucket."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tidegate.aws.formats import StoredFile, decode_manifest, is_gap
from tidegate.aws.layout import MANIFESTS, MODELS, model_key, unit_key
from tidegate.aws.objects import Objects
from tidegate.errors import StoreError
from tidegate.model_units import lost_unit
from tidegate.ports import Unit
from tidegate.tasks import run_all

FEW = 8
"""Up to so many models are listed one by one; for more, the whole bucket is listed."""


async def list_etags(objects: Objects, models: Collection[str]) -> Mapping[str, str]:
    """Return the ETag of every manifest and every file of some models, by key."""
    below = [""] if len(models) > FEW else [f"{model}/" for model in sorted(models)]
    listings = await run_all(objects.list(root + each) for root in (MANIFESTS, MODELS) for each in below)
    return {found.key: found.etag for listed in listings for found in listed}


class ModelInspector:
    """Compares the ETags of files with those in their manifests, which are read again once their own ETags change."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._whole: dict[Unit, tuple[str, tuple[StoredFile, ...]]] = {}

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        """See `ModelStore.damage`."""
        etags = await list_etags(self._objects, {model for model, _ in units})
        found = await run_all(self._damage(*unit, etags) for unit in units)
        return sorted(text for texts in found for text in texts)

    async def _damage(self, model: str, version: int | None, etags: Mapping[str, str]) -> list[str]:
        key = unit_key(MANIFESTS, model, version)
        etag = etags.get(key)
        whole = self._whole.get((model, version))
        if etag is not None and (whole is None or whole[0] != etag):
            stored = await self._objects.get(key)
            if stored is None or is_gap(stored.data):
                etag = None
            else:
                try:
                    whole = stored.etag, decode_manifest(key, stored.data).files
                except StoreError:
                    return [f"{key} is damaged"]
                self._whole[model, version] = whole
        if etag is None or whole is None:
            return [lost_unit(model, version)]
        return [text for each in whole[1] if (text := _damage_of(model, each, etags))]


def _damage_of(model: str, stored: StoredFile, etags: Mapping[str, str]) -> str | None:
    path = stored.file.path
    there = etags.get(model_key(model, path))
    if there is None:
        return f"{model}/{path} is gone"
    return f"{model}/{path} has other bytes" if stored.etag and there != stored.etag else None
