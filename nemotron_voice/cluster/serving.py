"""The server's app as a Ray Serve deployment: each replica holds an engine of its own.

    serve run nemotron_voice.cluster.serving:build model=demo min_replicas=1 max_replicas=4

`nemotron-voice serve --ray` does the same with the options of `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
from pydantic import TypeAdapter, ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemotron_voice.cluster.failures import failure
from nemotron_voice.config import DEFAULT_MODEL, EngineOptions
from nemotron_voice.engine import Engine
from nemotron_voice.errors import ConfigurationError, EngineError
from nemotron_voice.server import ServerOptions, create_app
from nemotron_voice.server.app import Service
from nemotron_voice.server.run import read_keys

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

APPLICATION: Final = "nemotron-voice"
DEPLOYMENT: Final = "recogniser"
REPLICA_HEADER: Final = "x-nemotron-replica"  # of every answer: which replica gave it

# A WebSocket counts as a request for as long as it lasts. What a replica takes beyond its slots is
# for /metrics and the like, and for streams that the engine refuses with a reason.
HEADROOM: Final = 8
HEALTH_CHECK_S: Final = 2.0  # a dead replica is noticed by then; Ray's default is 10
STUCK_S: Final = 60.0  # streams wait and no step has ended: the device hangs
WATCH_S: Final = 0.25  # how often a replica looks whether it is being stopped
LAST_S: Final = 5.0  # after the drain, for Ray to end the replica


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What each replica runs, and how many there are.

    ClusterOptions(model="demo", min_replicas=2, max_replicas=8, num_cpus=4)

    Raises:
        ConfigurationError: naming the value, what is allowed and the remedy.
    """

    model: str = DEFAULT_MODEL  # a hub id, "demo", or a path that each machine has
    revision: str | None = None
    offline: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    api_key_file: str | None = None  # read by each replica: keys don't enter Ray's own store
    min_replicas: int = 1
    max_replicas: int | None = None  # None: as many as min_replicas
    load: float = 0.7  # of its slots that a replica has in use when another one is started
    num_cpus: float | None = None  # of a replica; None: engine.threads, or 1
    num_gpus: float | None = None  # of a replica; None: 1 with device "cuda", else 0

    def __post_init__(self) -> None:
        """Refuse what Ray would refuse later, or start and never serve."""
        if self.min_replicas < 1:
            raise ConfigurationError(f"min_replicas={self.min_replicas} must be 1 or more")
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ConfigurationError(
                f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}"
            )
        if not 0 < self.load <= 1:
            raise ConfigurationError(
                f"load={self.load} must be a share of a replica's slots, more than 0 and at most 1"
            )
        if self.server.api_keys:
            raise ConfigurationError(
                "api_keys would be shown in Ray's dashboard; write them to a file that each "
                "machine has and give api_key_file"
            )

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> ClusterOptions:
        """From a flat mapping, values may be text: fields of this, of EngineOptions, ServerOptions.

        Raises:
            ConfigurationError: an argument has no such name or value.
        """
        own = {one.name for one in fields(cls)} - {"engine", "server"}
        engine = {one.name for one in fields(EngineOptions)}
        server = {one.name for one in fields(ServerOptions)}
        if unknown := sorted(args.keys() - own - engine - server):
            known = ", ".join(sorted(own | engine | server))
            raise ConfigurationError(f"{', '.join(unknown)} is no argument; there are {known}")
        return replace(
            _parse(cls, args, own),
            engine=_parse(EngineOptions, args, engine),
            server=_parse(ServerOptions, args, server),
        )


def build(args: Mapping[str, Any]) -> Application:
    """The application; Ray's application builder, for `serve run` and `serve` configurations.

    Args:
        args: fields of ClusterOptions, EngineOptions and ServerOptions by name.
    """
    return application(ClusterOptions.from_args(args))


def application(options: ClusterOptions) -> Application:
    """The application of these options."""
    engine, slots = options.engine, options.engine.max_streams
    num_gpus = options.num_gpus
    if num_gpus is None:  # a replica sees no GPU that Ray hasn't given it
        num_gpus = 1.0 if engine.device.startswith("cuda") else 0.0

    def open_app() -> ASGIApp:  # in each replica
        return ReplicaApp(options)

    deployment = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=slots + HEADROOM,
        # All calls of a replica that died may come at once; beyond that a client is told to come
        # again instead of being left waiting.
        max_queued_requests=slots + HEADROOM,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas or options.min_replicas,
            "target_ongoing_requests": options.load * slots,
        },
        ray_actor_options={
            "num_cpus": options.num_cpus or engine.threads or 1,
            "num_gpus": num_gpus,
        },
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=options.server.drain_s + LAST_S,
        graceful_shutdown_wait_loop_s=0.5,
    )(serve.ingress(open_app)(Recogniser))
    return deployment.bind()


@contextlib.contextmanager
def running(options: ClusterOptions, *, host: str, port: int) -> Iterator[None]:
    """Replicas that serve within the block, and are drained after it.

    On the cluster of RAY_ADDRESS, or this machine's, or a new one. A Serve that runs there already
    keeps its own host and port. With device "auto", replicas have a GPU if the cluster has any.

    Args:
        options: of the replicas.
        host: address that Ray's proxy listens on.
        port: port that it listens on.

    Raises:
        ModelNotFoundError, CheckpointError, EngineError: no replica can start.
    """
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    try:
        if options.engine.device == "auto" and ray.cluster_resources().get("GPU"):
            options = replace(options, engine=replace(options.engine, device="cuda"))
        try:
            serve.start(http_options={"host": host, "port": port})
        except RayError as error:
            raise failure(str(error), "Ray's proxy could not start") from error
        try:
            serve.run(application(options), name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            said = serve.status().applications[APPLICATION].deployments[DEPLOYMENT].message
            serve.delete(APPLICATION)
            raise failure(said, "no replica could start") from error
        try:
            yield
        finally:
            serve.delete(APPLICATION)
    finally:
        ray.shutdown()


class Recogniser:
    """The deployment: Ray asks it whether it is well."""

    app: ReplicaApp  # put there by serve.ingress

    def check_health(self) -> None:
        """Raise if the engine stands still or all steps fail; after three times Ray replaces it."""
        self.app.check_health()


class ReplicaApp:
    """The server's app in one replica, with an engine of its own."""

    def __init__(self, options: ClusterOptions) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        limits = options.server
        if options.api_key_file:
            limits = replace(limits, api_keys=read_keys(Path(options.api_key_file)))
        chosen = {one.name: getattr(options.engine, one.name) for one in fields(EngineOptions)}
        self._engine = Engine.load(
            options.model, revision=options.revision, offline=options.offline, **chosen
        )
        self._app = create_app(self._engine, limits)
        self._service: Service = self._app.state.service
        self._name = serve.get_replica_context().replica_tag.encode()
        self._steps = -1
        self._stepped_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the server's app; its answers name the replica."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, self._signed(send))
            return
        watch = asyncio.create_task(self._drain_when_stopped(), name="replica-watch")
        try:
            await self._app(scope, receive, send)
        finally:
            watch.cancel()
            self._engine.close()

    def check_health(self) -> None:
        """Refuse the claim to be well while streams wait and none gets its step, or all fail at it.

        Raises:
            EngineError.
        """
        if self._service.model_health.fault is not None:
            raise EngineError(self._service.model_health.fault)
        stats = self._engine.stats()
        if stats.steps != self._steps or not stats.waiting:
            self._steps, self._stepped_at = stats.steps, time.monotonic()
        elif time.monotonic() - self._stepped_at > STUCK_S:
            raise EngineError(f"{stats.waiting} streams wait and no step ended for {STUCK_S:g} s")

    def _signed(self, send: Send) -> Send:
        async def signed(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[REPLICA_HEADER] = self._name.decode()
            await send(message)

        return signed

    async def _drain_when_stopped(self) -> None:
        """Drain as soon as Ray stops the replica.

        Ray calls nothing of ours before the last request has ended, and a call may last for hours.
        """
        try:
            while not is_stopping():  # noqa: ASYNC110 - Ray sets a flag, no event
                await asyncio.sleep(WATCH_S)
        except (AttributeError, KeyError) as error:
            _log.warning(
                "this Ray doesn't tell a replica that it is being stopped (%r): calls that last "
                "longer than graceful_shutdown_timeout_s will be cut off",
                error,
            )
            return
        await self._service.drain()


_BEGINNINGS: Final = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


def is_stopping() -> bool:
    """Whether Ray has begun to stop this replica.

    Serve has no public sign of it (Ray 2.60): this is the flag that its replica sets first.

    Raises:
        AttributeError, KeyError: another Ray keeps it elsewhere.
    """
    worker = attrgetter("_private.worker.global_worker")(ray)
    stopping: bool = attrgetter("_replica_impl._shutting_down")(worker.actors[worker.actor_id])
    return stopping


def _parse(kind: type[_T], args: Mapping[str, Any], names: set[str]) -> _T:
    """A dataclass from those of the arguments that are its fields."""
    try:
        return TypeAdapter(kind).validate_python({n: v for n, v in args.items() if n in names})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"{'.'.join(map(str, first['loc'])) or 'arguments'}: {first['msg']}, not "
            f"{first['input']!r}"
        ) from error
