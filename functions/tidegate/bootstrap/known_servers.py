"""The servers that this process started, so that a load through any part of it can read their logs."""

from __future__ import annotations

from tidegate.ports import Endpoint, ModelRepository, ModelServer, RegisteredEndpoint, RepositoryOf, ServerLauncher


class KnownServers:
    """A `ServerLauncher` that remembers the repositories of what it launched."""

    def __init__(self, launcher: ServerLauncher) -> None:
        self._launcher = launcher
        self._repositories: dict[Endpoint, ModelRepository] = {}

    async def launch(self, shard: str) -> ModelServer:
        """See `ServerLauncher.launch`."""
        server = await self._launcher.launch(shard)
        self._repositories[server.endpoint] = server.repository
        return server

    def repository_of(self, others: RepositoryOf) -> RepositoryOf:
        """The repository of a server that was launched here, and by `others` that of any other."""

        def repository(entry: RegisteredEndpoint) -> ModelRepository:
            return self._repositories.get(entry.endpoint) or others(entry)

        return repository
