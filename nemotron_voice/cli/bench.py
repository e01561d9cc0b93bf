"""`nemotron-voice bench`: its commands and options; what is measured is in the package's bench/."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nemotron_voice.cli import screen
from nemotron_voice.cli.options import whole_numbers
from nemotron_voice.config import LATENCIES_MS, all_but_one

if TYPE_CHECKING:
    from nemotron_voice.bench.subject import Subject

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure this machine: how many callers it holds, how soon they are answered, what a step "
    "costs.",
    epilog="Begin with [bold]nemotron-voice bench capacity --model demo --duration-s 10[/bold]. "
    "Every command prints a Markdown table, and writes --output FILE.json with the machine in it; "
    "[bold]report[/bold] makes tables and plots of such files.",
)

_ALL_LATENCIES = ",".join(map(str, LATENCIES_MS))

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="[bold]random[/bold] (the real size with random weights: as fast as the real one, no "
        "download, hears nothing), [bold]demo[/bold], a folder, a .nemo file, or a Hugging Face "
        "id. Random weights are written to the user's cache once: 2.6 GB.",
    ),
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", "-p", help="auto, fp32, bf16 or int8.")
]
PrecisionsOption = Annotated[
    str,
    typer.Option("--precision", "-p", help="auto, fp32, bf16 or int8; several: fp32,bf16,int8."),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="CPU threads of the network; default: PyTorch's choice.", min=1)
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write all figures there, as JSON.")
]
AudioOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Recording that callers say, in a loop; repeat for more. "
        "[dim]\\[default: the bundled calls][/dim]"
    ),
]
LatencyOption = Annotated[int, typer.Option(help=f"Mode: one of {_ALL_LATENCIES}.")]
LatenciesOption = Annotated[str, typer.Option(help="Modes, separated by commas.")]


def say(message: str) -> None:
    """One line of progress on standard error; also called in the measured processes."""
    screen.err().print(f"[dim]{escape(message)}[/dim]", soft_wrap=True)


@bench.command(
    epilog="""[bold]Examples[/bold]

  nemotron-voice bench steps --precision fp32,bf16,int8 --output steps.json
  nemotron-voice bench steps --model demo --latency-ms 320 --streams 1,8
""".replace("\n  ", "\n\n")
)
def steps(
    model: ModelOption = "random",
    precision: PrecisionsOption = "auto",
    latency_ms: LatenciesOption = _ALL_LATENCIES,
    streams: Annotated[
        str, typer.Option(help="Streams at once, separated by commas.")
    ] = "1,2,4,8,16,32",
    number: Annotated[
        int, typer.Option("--steps", help="Steps that each median is taken of.", min=5)
    ] = 40,
    budget_s: Annotated[
        float, typer.Option(help="Seconds after which fewer steps do, but at least 5.")
    ] = 20.0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    audio: AudioOption = None,
    output: OutputOption = None,
) -> None:
    """What a step costs, by latency mode, streams at once and precision.

    The real-time factor is the step's time over the audio that it decodes of each stream: 0.5 means
    that all these streams at once take half of the machine.
    """
    from nemotron_voice.bench.steps import StepOptions, measure  # noqa: PLC0415

    options = StepOptions(
        latencies_ms=whole_numbers("--latency-ms", latency_ms),
        streams=whole_numbers("--streams", streams),
        steps=number,
        budget_s=budget_s,
        audio=tuple(audio or ()),
    )
    subjects = _subjects(model, precision, device, threads)
    _finish("steps", measure(subjects, options, say), output)


@bench.command(
    epilog="""[bold]Examples[/bold]

  nemotron-voice bench capacity --latency-ms 80,320 --precision int8 --output capacity.json
  nemotron-voice bench capacity --model demo --duration-s 10 --start 16
""".replace("\n  ", "\n\n")
)
def capacity(
    model: ModelOption = "random",
    precision: PrecisionOption = "auto",
    latency_ms: LatenciesOption = "320",
    duration_s: Annotated[
        float,
        typer.Option(
            help="Of a trial. Under 120 a number may hold that doesn't hold longer.", min=1
        ),
    ] = 120.0,
    stagger_s: Annotated[
        float, typer.Option(help="Callers begin spread over so long; at most half a trial.", min=0)
    ] = 10.0,
    final_limit_ms: Annotated[
        str,
        typer.Option(
            help="Bounds on the 95th percentile from flush to final, separated by commas. 1000 is "
            "that of the public C120 rule; agents want 100."
        ),
    ] = "100,1000",
    start: Annotated[int, typer.Option(help="Callers of the first trial.", min=1)] = 4,
    most: Annotated[int, typer.Option(help="No more callers are tried.", min=1)] = 10_000,
    resolution: Annotated[
        float, typer.Option(help="How exact the answer is, as a share of it.", min=0.0, max=1.0)
    ] = 0.05,
    max_batch: Annotated[
        int | None, typer.Option(help="Streams in one step at most.", min=1)
    ] = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of the network; default: all cores but one.", min=1),
    ] = None,
    audio: AudioOption = None,
    output: OutputOption = None,
) -> None:
    """How many callers this machine holds in real time.

    The largest number that holds a trial: callers push packets of 20 ms as they are spoken and are
    flushed when they pause; at most 0.1 % of the chunks wait longer than one chunk, and the 95th
    percentile from flush to final is within the bound. A fresh process for each trial, doubling,
    then halving. A trial in which the load itself was late proves nothing and is refused.
    """
    from nemotron_voice.bench.capacity import SearchOptions, measure  # noqa: PLC0415
    from nemotron_voice.bench.trial import TrialOptions  # noqa: PLC0415

    (subject,) = _subjects(model, precision, device, threads or all_but_one())
    search = SearchOptions(
        final_limits_ms=tuple(map(float, whole_numbers("--final-limit-ms", final_limit_ms))),
        start=start,
        most=most,
        resolution=resolution,
    )
    found = []
    for mode in whole_numbers("--latency-ms", latency_ms):
        trial = TrialOptions(
            latency_ms=mode,
            duration_s=duration_s,
            stagger_s=min(stagger_s, duration_s / 2),
            max_batch=max_batch,
            audio=tuple(audio or ()),
        )
        found.append(measure(subject, trial, search, say))
    _finish("capacity", found, output)


@bench.command()
def startup(
    model: ModelOption = "random",
    precision: PrecisionsOption = "auto",
    latency_ms: LatencyOption = 320,
    repetitions: Annotated[int, typer.Option(help="Processes started.", min=1)] = 5,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """From process start to ready, what the first caller pays besides, and memory."""
    from nemotron_voice.bench.startup import measure  # noqa: PLC0415

    rows = [
        measure(asdict(subject), latency_ms=latency_ms, repetitions=repetitions, progress=say)
        for subject in _subjects(model, precision, device, threads)
    ]
    _finish("startup", rows, output)


@bench.command()
def call_length(
    model: ModelOption = "random",
    precision: PrecisionsOption = "auto",
    latency_ms: LatencyOption = 320,
    minutes: Annotated[int, typer.Option(help="Of audio, as fast as it is heard.", min=1)] = 60,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    audio: AudioOption = None,
    output: OutputOption = None,
) -> None:
    """Whether a step costs the same after an hour of a call as at its beginning.

    A machine's speed varies meanwhile: so at the end the call and a fresh one are heard in turn.
    """
    from nemotron_voice.bench.call_length import measure  # noqa: PLC0415

    calls = [
        measure(
            subject,
            minutes=minutes,
            latency_ms=latency_ms,
            audio=tuple(audio or ()),
            progress=say,
        )
        for subject in _subjects(model, precision, device, threads)
    ]
    _finish("call_length", calls, output)


@bench.command()
def packets(output: OutputOption = None) -> None:
    """What a packet costs on its way in, without the network; needs no model."""
    from nemotron_voice.bench.packets import measure  # noqa: PLC0415

    _finish("packets", measure(say), output)


@bench.command()
def roofline(
    model: ModelOption = "random",
    precision: PrecisionsOption = "auto",
    latency_ms: LatenciesOption = _ALL_LATENCIES,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """How near a step comes to this machine's measured peaks, and which one bounds it."""
    from nemotron_voice.bench.roofline import measure  # noqa: PLC0415

    subjects = _subjects(model, precision, device, threads)
    modes = whole_numbers("--latency-ms", latency_ms)
    _finish("roofline", measure(subjects, modes, say), output)


@bench.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="Files that --output wrote.")],
    plots: Annotated[
        Path | None,
        typer.Option(help="Folder for plots, as SVG; needs the extra [bold]bench[/bold]."),
    ] = None,
) -> None:
    """Tables in Markdown, and plots, of results on disk."""
    from nemotron_voice.bench.plots import plot  # noqa: PLC0415
    from nemotron_voice.bench.report import table  # noqa: PLC0415
    from nemotron_voice.bench.results import read  # noqa: PLC0415

    for path in files:
        results = read(path)
        typer.echo(f"{table(results)}\n")
        for picture in plot(results, plots) if plots else ():
            say(f"wrote {picture}")


def _subjects(model: str, precisions: str, device: str, threads: int | None) -> list[Subject]:
    """What is measured; random weights are written now if they aren't there yet."""
    from nemotron_voice.bench import random_folder  # noqa: PLC0415
    from nemotron_voice.bench.subject import Subject  # noqa: PLC0415

    if model == random_folder.NAME and not random_folder.is_written():
        say(f"writing random weights of the real size to {random_folder.cached_folder()}, once")
    subjects = [
        Subject.of(model=model, precision=name.strip(), device=device, threads=threads)
        for name in precisions.split(",")
    ]
    random_folder.resolve(model)
    return subjects


def _finish(benchmark: str, measured: Any, output: Path | None) -> None:
    """Write the figures, then print the table."""
    from nemotron_voice.bench.report import table  # noqa: PLC0415
    from nemotron_voice.bench.results import results_of, write  # noqa: PLC0415

    results = results_of(benchmark, measured)
    if output is not None:
        write(results, output)
        say(f"wrote {output}")
    typer.echo(table(results))
