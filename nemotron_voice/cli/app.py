"""The commands, their options and their help; what they do is in the files beside this one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nemotron_voice import __version__
from nemotron_voice.cli import screen
from nemotron_voice.cli.bench import bench
from nemotron_voice.cli.evaluate import COMPARE_EXAMPLES, EVALUATE_EXAMPLES, compare, evaluate
from nemotron_voice.cli.options import DeviceOption, ModelOption, PrecisionOption, needs
from nemotron_voice.config import (
    DEFAULT_MODEL,
    LATENCIES_MS,
    EngineOptions,
    StreamOptions,
    all_but_one,
)
from nemotron_voice.errors import (
    ConfigurationError,
    ModelNotFoundError,
    NemotronVoiceError,
)

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine

FAILURE, USAGE = 1, 2  # exit codes


class Commands(TyperGroup):
    """Turns the package's own errors into one red line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. A wrong option exits with 2, a failure with 1."""
        try:
            return super().invoke(ctx)
        except NemotronVoiceError as error:
            screen.complain(with_remedy(error))
            raise typer.Exit(USAGE if isinstance(error, ConfigurationError) else FAILURE) from error


def with_remedy(error: NemotronVoiceError) -> str:
    """The error's message; where a model is missing, with the one that never is."""
    message = str(error)
    if isinstance(error, ModelNotFoundError) and "demo" not in message:
        message += "; or use --model demo, the small model that comes with this package"
    return message


class Format(StrEnum):
    """How transcripts are written."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"


class TableFormat(StrEnum):
    """How the list of languages is written."""

    table = "table"
    json = "json"


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Streaming speech recognition in 40 locales with [bold]Nemotron 3.5 ASR[/bold].",
    epilog="Begin with [bold]nemotron-voice demo[/bold]: calls in several languages, no download.",
)

app.add_typer(bench, name="bench")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"nemotron-voice {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version."),
    ] = False,
) -> None:
    pass


_LATENCY_HELP = f"Audio per step: {', '.join(map(str, LATENCIES_MS))}. Larger hears better."


@app.command(
    epilog="""[bold]Examples[/bold]

  nemotron-voice transcribe meeting.mp3
  nemotron-voice transcribe --model demo --realtime call.wav
  nemotron-voice transcribe --language es-ES --format srt --output-dir subtitles *.flac
  nemotron-voice transcribe --format json call.ogg | jq -r 'select(.is_final) | .text'
  nemotron-voice transcribe --ray manifest.jsonl --output transcripts.jsonl
""".replace("\n  ", "\n\n")
)
def transcribe(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Audio of any format and rate: wav, flac, mp3, ogg, m4a."),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    language: Annotated[
        str,
        typer.Option(
            "--language", "-l", help="[bold]auto[/bold], or a locale to insist on: es-ES, Spanish."
        ),
    ] = "auto",
    latency_ms: Annotated[
        int | None,
        typer.Option(help=f"{_LATENCY_HELP} [dim]\\[default: 1120, or 320 with --realtime][/dim]"),
    ] = None,
    output_format: Annotated[
        Format, typer.Option("--format", "-f", help="json: an event a line, with every field.")
    ] = Format.text,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime", help="Pace the audio as if spoken now; show text while it forms."
        ),
    ] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Write FILE.txt, .jsonl, .srt or .vtt there instead of to the screen."),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only models that are already on this machine.")
    ] = False,
    ray: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Instead of FILES, all files of a manifest, on a Ray cluster: JSON lines with "
            "audio_filepath and maybe target_lang, or a path a line. Writes a JSON line a file.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="With --ray: where the lines go instead of the screen.")
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            help="With --ray: copies of the model; default: one for each GPU, or CPU core.", min=1
        ),
    ] = None,
) -> None:
    """Stream audio files through the recogniser and write what was said, a sentence at a time."""
    if ray is not None:
        if files or realtime or output_dir or output_format is not Format.text:
            raise ConfigurationError(
                "--ray MANIFEST takes no FILES, --realtime, --format or --output-dir: it writes "
                "JSON lines to --output"
            )
        with needs("cluster"):
            from nemotron_voice.cli.cluster import transcribe_manifest  # noqa: PLC0415
            from nemotron_voice.cluster.bulk import BulkOptions  # noqa: PLC0415
        bulk = BulkOptions(
            model=model,
            revision=revision,
            offline=offline,
            device=device,
            precision=precision,  # type: ignore[arg-type]  # checked there
            language=language,
            latency_ms=1120 if latency_ms is None else latency_ms,
            actors=actors,
        )
        if transcribe_manifest(ray, bulk, output):
            raise typer.Exit(FAILURE)
        return
    if not files or output or actors:
        raise ConfigurationError("name FILES to transcribe; --output and --actors go with --ray")
    from nemotron_voice.cli.transcribe import Job, run  # noqa: PLC0415  (help needs none of it)

    options = StreamOptions(
        language=language,
        latency_ms=latency_ms if latency_ms is not None else 320 if realtime else 1120,
        finalize="sentence",
        interim_results=realtime,
    )
    if output_dir is None and len(files) > 1 and output_format in {Format.srt, Format.vtt}:
        raise ConfigurationError(
            f"--format {output_format.value} of {len(files)} files can't share one output; "
            "add --output-dir DIR"
        )
    job = Job(files, options, output_format.value, realtime=realtime, output_dir=output_dir)
    with load(
        model, device=device, revision=revision, offline=offline, precision=precision
    ) as engine:
        failures = asyncio.run(run(engine, job))
    if failures:
        raise typer.Exit(FAILURE)


@app.command(
    epilog="""[bold]Examples[/bold]

  nemotron-voice demo
  nemotron-voice demo --fast --latency-ms 160
""".replace("\n  ", "\n\n")
)
def demo(
    model: ModelOption = "demo",
    latency_ms: Annotated[int, typer.Option(help=_LATENCY_HELP)] = 320,
    fast: Annotated[
        bool, typer.Option("--fast", help="As fast as the machine can, not paced.")
    ] = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Play bundled phone calls in which the caller changes language, and show what is heard.

    The calls are synthetic speech, and the demo model knows only a restaurant's phone line: it
    shows the engine, not Nemotron's quality.
    """
    from nemotron_voice.cli.demo import bundled_calls, play  # noqa: PLC0415

    calls = bundled_calls()
    options = StreamOptions(latency_ms=latency_ms)
    with load(model, device=device, precision=precision) as engine:
        asyncio.run(play(engine, calls, options, fast=fast))


app.command(epilog=EVALUATE_EXAMPLES)(evaluate)
app.command(epilog=COMPARE_EXAMPLES)(compare)


@app.command()
def languages(
    output_format: Annotated[TableFormat, typer.Option("--format", "-f")] = TableFormat.table,
) -> None:
    """List the 40 locales: how well each works, its prompt index, its other names."""
    from nemotron_voice.cli import language_table  # noqa: PLC0415

    if output_format is TableFormat.json:
        typer.echo(language_table.as_json())
    else:
        screen.out().print(language_table.as_table())


@app.command(
    epilog="""[bold]Examples[/bold]

  nemotron-voice serve --model demo
  nemotron-voice serve --host 0.0.0.0 --api-key-file keys.txt --max-streams 200
  nemotron-voice serve --ray --min-replicas 2 --max-replicas 8
""".replace("\n  ", "\n\n")
)
def serve(
    model: ModelOption = DEFAULT_MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    max_streams: Annotated[
        int, typer.Option(help="Callers at once; one more is refused.", min=1)
    ] = 64,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one API key a line; without it none is asked.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Serve a network without keys.")
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages elsewhere that may connect; repeat for more."),
    ] = None,
    max_streams_per_key: Annotated[
        int | None, typer.Option(help="Callers at once of one API key.", min=1)
    ] = None,
    idle_s: Annotated[
        float, typer.Option(help="Seconds without audio or KeepAlive that end a connection.")
    ] = 10.0,
    session_s: Annotated[float, typer.Option(help="Seconds that a connection may last.")] = 14_400,
    drain_s: Annotated[
        float, typer.Option(help="Seconds for finals to be delivered after SIGTERM.")
    ] = 10.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of the network; default: all cores but one.", min=1),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only models that are already on this machine.")
    ] = False,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Serve replicas on the Ray cluster of RAY_ADDRESS, or here."),
    ] = False,
    min_replicas: Annotated[
        int, typer.Option(help="With --ray: engines at least, each with --max-streams.", min=1)
    ] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option(help="With --ray: engines at most; default: --min-replicas.", min=1),
    ] = None,
) -> None:
    """Serve one engine to many agents: Deepgram's streaming protocol, OpenAI's for files.

    Pipecat's and LiveKit's Deepgram services connect by changing a URL; RemoteEngine, and url= of
    our own adapters, reconnect and replay besides.
    """
    with needs("server"):
        from nemotron_voice.cli.serve import check_exposure, serve  # noqa: PLC0415
        from nemotron_voice.server import ServerOptions  # noqa: PLC0415
        from nemotron_voice.server.run import read_keys  # noqa: PLC0415
    options = ServerOptions(
        api_keys=read_keys(api_key_file) if api_key_file else (),
        allowed_origins=tuple(allow_origin or ()),
        max_streams_per_key=max_streams_per_key,
        idle_s=idle_s,
        session_s=session_s,
        drain_s=drain_s,
    )
    check_exposure(host, has_keys=bool(options.api_keys), no_auth=no_auth)
    threads = threads or all_but_one()
    if ray:
        with needs("cluster"):
            from nemotron_voice.cli.cluster import serve as serve_replicas  # noqa: PLC0415
            from nemotron_voice.cluster.serving import ClusterOptions  # noqa: PLC0415
        cluster = ClusterOptions(
            model=model,
            revision=revision,
            offline=offline,
            engine=EngineOptions(
                device=device,
                precision=precision,  # type: ignore[arg-type]  # checked there
                max_streams=max_streams,
                threads=threads,
            ),
            server=replace(options, api_keys=()),  # each replica reads the file
            api_key_file=str(api_key_file.absolute()) if api_key_file else None,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
        )
        serve_replicas(cluster, host=host, port=port)
        return
    engine = load(
        model,
        device=device,
        revision=revision,
        offline=offline,
        precision=precision,
        max_streams=max_streams,
        threads=threads,
    )
    with engine:
        serve(engine, options, host=host, port=port)


def load(
    model: str,
    *,
    device: str,
    revision: str | None = None,
    offline: bool = False,
    **options: Any,
) -> Engine:
    """An engine, with a sign of life while its model loads."""
    from nemotron_voice.engine import Engine  # noqa: PLC0415  (brings torch)

    with screen.waiting(f"loading {model}"):
        return Engine.load(model, device=device, revision=revision, offline=offline, **options)
