"""What of the pushed models is not in the bucket as it was pushed, from listings alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tidegate.aws.formats import StoredFile, decode_manifest, is_gap
from tidegate.aws.layout import MANIFESTS, MODELS, model_key, unit_key
from tidegate.aws.objects import Objects
from tidegate.aws.unit_push import run_all
from tidegate.errors import StoreError
from tidegate.ports import Unit
from tidegate.ports.model_units import lost_unit

FEW = 8
"""Up to so many models are each asked for; of more, everything that is in the bucket is listed."""


class ModelInspector:
    """Compares files by the ETags that their manifest remembers; a manifest is read again where its own has changed."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._whole: dict[Unit, tuple[str, tuple[StoredFile, ...]]] = {}

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        """See `ModelStore.damage`.

        Raises:
            StoreError: S3 did not answer, or refused.
        """
        models = {model for model, _ in units}
        below = [""] if len(models) > FEW else [f"{model}/" for model in sorted(models)]
        listings = await run_all(self._objects.list(root + each) for root in (MANIFESTS, MODELS) for each in below)
        etags = {found.key: found.etag for listed in listings for found in listed}
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


def _damage_of(model: str, stored: StoredFile, etags: Mapping[str, str]) -> str:
    """What is wrong with a file; empty where nothing is."""
    path = stored.file.path
    there = etags.get(model_key(model, path))
    if there is None:
        return f"{model}/{path} is gone"
    return f"{model}/{path} has other bytes" if stored.etag and there != stored.etag else ""
