"""`nemotron-voice evaluate` and `compare`; what is measured is in the package's evaluation/."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nemotron_voice import __version__
from nemotron_voice.cli import screen
from nemotron_voice.cli.options import (
    DeviceOption,
    ModelOption,
    PrecisionOption,
    needs,
    whole_numbers,
)
from nemotron_voice.config import DEFAULT_MODEL, LATENCIES_MS, EngineOptions
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.normalisation import DESCRIPTIONS, Normaliser, normalise
from nemotron_voice.languages import AUTO

if TYPE_CHECKING:
    from nemotron_voice.evaluation.hypotheses import Hypothesis
    from nemotron_voice.evaluation.listening import ListenOptions
    from nemotron_voice.evaluation.manifest import Clip
    from nemotron_voice.evaluation.summary import Figures

EVALUATE_EXAMPLES = """[bold]Examples[/bold]

  nemotron-voice evaluate test.jsonl --latency-ms 80,320,1120 --output results/base
  nemotron-voice evaluate google/fleurs --config el_gr --latency-ms 80 --language manifest
  nemotron-voice evaluate calls.jsonl -m demo --flush-at-pauses --by speaker
  nemotron-voice evaluate speech/manifest.jsonl -m demo --where kind=digit,word --by kind
""".replace("\n  ", "\n\n")
COMPARE_EXAMPLES = """[bold]Examples[/bold]

  nemotron-voice compare results/base/hypotheses.jsonl results/tuned/hypotheses.jsonl
  nemotron-voice compare a.jsonl a.jsonl --latency-a 80 --latency-b 1120
""".replace("\n  ", "\n\n")

HYPOTHESES, RESULTS, REPORT, PLOT = (
    "hypotheses.jsonl",
    "results.json",
    "report.md",
    "accuracy.svg",
)
AT_ONCE, AT_ONCE_REALTIME = 32, 4
_SAY_EVERY_S = 30.0


NormaliserOption = Annotated[
    Normaliser,
    typer.Option(
        help="How texts are made comparable: multilingual (lower case, no punctuation, all "
        "accents and vowel marks kept), basic (Whisper's: breaks Hindi and Thai words), whisper "
        "(Whisper's English rules for English), none (as written)."
    ),
]


@dataclass(frozen=True, slots=True)
class Job:
    """What one evaluation is told; kept beside its results."""

    source: str
    model: str
    device: str
    precision: str
    language: str
    latencies_ms: tuple[int, ...]
    flush_at_pauses: bool
    realtime: bool
    at_once: int
    normaliser: Normaliser
    version: str = __version__

    @property
    def way(self) -> str:
        """How the audio went in, in words."""
        pauses = "flushed at pauses of 200 ms" if self.flush_at_pauses else "one final at its end"
        return f"streamed{' in real time' if self.realtime else ''}, {pauses}"

    @property
    def decides_text(self) -> dict[str, Any]:
        """What a hypothesis depends on besides clip and latency."""
        names = ("model", "precision", "language", "flush_at_pauses", "realtime", "version")
        return {name: getattr(self, name) for name in names}


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST",
            help="JSON lines with audio_filepath, text, duration and target_lang (NeMo's), or a "
            "Hugging Face dataset such as google/fleurs.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    language: Annotated[
        str,
        typer.Option(
            "--language",
            "-l",
            help="[bold]auto[/bold] (detected, and its accuracy reported), [bold]manifest[/bold] "
            "(each clip's own is forced), or a locale to force on all.",
        ),
    ] = AUTO,
    latency_ms: Annotated[
        str, typer.Option(help=f"Modes, separated by commas, of {LATENCIES_MS}: what you deploy.")
    ] = "320",
    flush_at_pauses: Annotated[
        bool,
        typer.Option(
            "--flush-at-pauses/--stream",
            help="Flush after each 200 ms of silence, as agents do (Silero), or only at the end.",
        ),
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Pace the audio as if spoken now; where the manifest has words with times, report "
            "how long after a word it is shown and final.",
        ),
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Also report apart by this field of the manifest: speaker.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Take only rows like this: FIELD=VALUE[,VALUE]; repeat for more."),
    ] = None,
    locale: Annotated[
        str | None, typer.Option(help="Language of rows that name none: el-GR.")
    ] = None,
    normaliser: NormaliserOption = Normaliser.multilingual,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=f"Folder for {HYPOTHESES}, {RESULTS}, {REPORT} and {PLOT}."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an evaluation that was cut off.")
    ] = False,
    config: Annotated[str | None, typer.Option(help="Of a dataset: el_gr.")] = None,
    split: Annotated[str, typer.Option(help="Of a dataset.")] = "test",
    text_column: Annotated[
        str | None, typer.Option(help="Of a dataset: where the text is.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="First so many clips of a dataset.", min=1)
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            help="Clips side by side; texts don't depend on it in fp32 and int8. "
            f"[dim]\\[default: {AT_ONCE}, or {AT_ONCE_REALTIME} with --realtime][/dim]",
            min=1,
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: PyTorch's choice.", min=1)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only models that are already on this machine.")
    ] = False,
) -> None:
    """Measure accuracy at the latency that you deploy: WER or CER, language, delays, intervals.

    Every clip goes through the engine as a call does. The manifest is checked first, and all that
    is wrong with it is listed before anything runs.
    """
    with needs("evaluate"):
        from nemotron_voice.evaluation import hub, manifest  # noqa: PLC0415
        from nemotron_voice.evaluation.listening import MANIFEST, ListenOptions  # noqa: PLC0415
    from nemotron_voice.engine import Engine  # noqa: PLC0415  (brings torch)
    from nemotron_voice.model.checkpoint import load_checkpoint  # noqa: PLC0415
    from nemotron_voice.model.precision import arithmetic_of, device_of  # noqa: PLC0415

    latencies = whole_numbers("--latency-ms", latency_ms)
    at_once = at_once or (AT_ONCE_REALTIME if realtime else AT_ONCE)
    ways = [
        ListenOptions(
            language=language,
            latency_ms=ms,
            flush_at_pauses=flush_at_pauses,
            realtime=realtime,
            at_once=at_once,
            normaliser=normaliser,
        )
        for ms in latencies
    ]
    engine_options = EngineOptions(
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked there
        max_streams=at_once,
        threads=threads,
    )
    if resume and output is None:
        raise ConfigurationError("--resume goes on with what is in --output DIR; name it")
    target = device_of(device)
    checkpoint = load_checkpoint(model, revision, offline=offline)
    job = Job(
        source=source,
        model=model,
        device=str(target),
        precision=arithmetic_of(precision, target.type, checkpoint.weights),
        language=language,
        latencies_ms=latencies,
        flush_at_pauses=flush_at_pauses,
        realtime=realtime,
        at_once=at_once,
        normaliser=normaliser,
    )
    rows = Path(source)
    if not rows.is_file():
        spec = hub.DatasetSpec(
            name=source,
            config=config,
            split=split,
            text_column=text_column,
            limit=limit,
        )
        with _bar("downloading clips") as advance:
            rows = hub.prepare(spec, advance)
    taken = manifest.ManifestOptions(
        where=_conditions(where or ()),
        locale=locale,
        supported=checkpoint.languages,
        needs_locale=language == MANIFEST,
        normalise=lambda text, code: normalise(text, code, normaliser),
    )
    with _bar("checking the manifest") as advance:
        clips = manifest.read_manifest(rows, taken, advance)
    kept = _kept(output, job) if resume and output is not None else []
    with screen.waiting(f"loading {model}"):
        engine = Engine(checkpoint, engine_options)
    with engine, _record(output, job, kept) as record:
        hypotheses = asyncio.run(_listen(engine, clips, ways, kept, record))
    _finish(hypotheses, job, by, output)


def compare(
    a: Annotated[Path, typer.Argument(help="Hypotheses of `evaluate --output`.")],
    b: Annotated[Path, typer.Argument(help="Others of the same clips.")],
    normaliser: NormaliserOption = Normaliser.multilingual,
    latency_a: Annotated[int | None, typer.Option(help="Only this mode of A.")] = None,
    latency_b: Annotated[int | None, typer.Option(help="Only this mode of B.")] = None,
    top: Annotated[int, typer.Option(help="Clips to show that changed most.", min=0)] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report there too.")
    ] = None,
) -> None:
    """Compare two models, precisions or latencies over the same clips: what changed, how surely.

    The interval of the difference is a paired bootstrap: what makes a clip hard cancels out. An
    interval that includes 0 shows no difference.
    """
    with needs("evaluate"):
        from nemotron_voice.evaluation import comparison, hypotheses, report  # noqa: PLC0415

    sides = []
    for path, latency_ms in ((a, latency_a), (b, latency_b)):
        read = hypotheses.read(path)
        own = [one for one in read if latency_ms in {None, one.latency_ms}]
        if not own:
            has = ", ".join(str(ms) for ms in sorted({one.latency_ms for one in read}))
            raise ConfigurationError(f"{path} has no hypothesis of {latency_ms} ms; it has {has}")
        sides.append(own)
    found = comparison.compare(sides[0], sides[1], normaliser)
    text = "\n\n".join(report.comparison(one, (str(a), str(b)), top) for one in found)
    text += f"\n\nNormalisation `{normaliser}`: {DESCRIPTIONS[normaliser]}."
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    typer.echo(text)


def _conditions(texts: Sequence[str]) -> dict[str, frozenset[str]]:
    """Options "FIELD=VALUE,VALUE" as a mapping."""
    conditions = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not (name and sign and values):
            raise ConfigurationError(f"--where {text!r} is not FIELD=VALUE[,VALUE]")
        conditions[name] = frozenset(values.split(","))
    return conditions


async def _listen(
    engine: Any,
    clips: Sequence[Clip],
    ways: Sequence[ListenOptions],
    kept: Sequence[Hypothesis],
    record: Callable[[Hypothesis], None],
) -> list[Hypothesis]:
    """All clips in all modes, in the manifest's order."""
    from nemotron_voice.evaluation.listening import listen  # noqa: PLC0415

    done = {(one.id, one.latency_ms): one for one in kept}
    with _bar("listening") as advance:
        count = len(clips) * len(ways)
        heard = 0

        def on_heard(one: Hypothesis) -> None:
            nonlocal heard
            record(one)
            heard += 1
            advance(heard, count)

        for way in ways:
            left = [clip for clip in clips if (clip.name, way.latency_ms) not in done]
            heard += len(clips) - len(left)
            for one in await listen(engine, left, way, on_heard):
                done[one.id, one.latency_ms] = one
    return [done[clip.name, way.latency_ms] for way in ways for clip in clips]


def _kept(output: Path, job: Job) -> list[Hypothesis]:
    """What an evaluation that was cut off has heard."""
    from nemotron_voice.evaluation import hypotheses  # noqa: PLC0415

    settings, lines = output / RESULTS, output / HYPOTHESES
    if not settings.is_file() or not lines.is_file() or not lines.stat().st_size:
        return []
    before = json.loads(settings.read_text(encoding="utf-8"))["decides_text"]
    if before != job.decides_text:
        changed = [name for name, value in job.decides_text.items() if before.get(name) != value]
        raise ConfigurationError(
            f"--resume can't go on in {output}: {', '.join(changed)} "
            f"{'was' if len(changed) == 1 else 'were'} other; take another --output"
        )
    text = lines.read_text(encoding="utf-8")
    lines.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")  # the last may be cut
    return [one for one in hypotheses.read(lines) if one.error is None]


@contextlib.contextmanager
def _record(
    output: Path | None, job: Job, kept: Sequence[Hypothesis]
) -> Iterator[Callable[[Hypothesis], None]]:
    """Keeps each hypothesis as soon as it is there."""
    from nemotron_voice.evaluation import hypotheses  # noqa: PLC0415

    if output is None:
        yield lambda _: None
        return
    output.mkdir(parents=True, exist_ok=True)
    _write_results(output, job, [])
    hypotheses.write(kept, output / HYPOTHESES)
    with (output / HYPOTHESES).open("a", encoding="utf-8") as file:

        def record(one: Hypothesis) -> None:
            file.write(hypotheses.as_line(one))
            file.flush()

        yield record


def _write_results(output: Path, job: Job, figures: Sequence[Figures]) -> None:
    from nemotron_voice.evaluation.summary import as_json  # noqa: PLC0415

    results = {"job": asdict(job), "decides_text": job.decides_text, "figures": as_json(figures)}
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (output / RESULTS).write_text(text, encoding="utf-8")


def _finish(
    hypotheses: Sequence[Hypothesis], job: Job, by: str | None, output: Path | None
) -> None:
    """Print the tables; write everything."""
    from nemotron_voice.evaluation import hypotheses as lines  # noqa: PLC0415
    from nemotron_voice.evaluation import report, summary  # noqa: PLC0415

    figures = summary.summarise(hypotheses, job.normaliser)
    clips = {one.id: one.duration for one in hypotheses}
    minutes = sum(clips.values()) / 60
    parts = [
        f"{job.model}, {job.precision} on {job.source}: {len(clips)} clips, {minutes:.1f} minutes",
        report.tables(figures),
    ]
    for value, own in summary.by_field(hypotheses, by).items() if by else ():
        parts.append(
            f"### {by}: {value}\n\n" + report.tables(summary.summarise(own, job.normaliser))
        )
    parts.append(report.method(job.normaliser, job.language, job.way))
    failed = [one for one in hypotheses if one.error]
    parts += [f"{one.id} was heard in part: {one.error}" for one in failed]
    text = "\n\n".join(parts)
    if output is not None:
        lines.write(hypotheses, output / HYPOTHESES)
        _write_results(output, job, figures)
        (output / REPORT).write_text(text + "\n", encoding="utf-8")
        report.plot(figures, output / PLOT)
        screen.err().print(f"[dim]wrote {output}/[/dim]", soft_wrap=True)
    typer.echo(text)
    if failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on standard error; where that is no terminal, a line every half minute."""
    console = screen.err()
    if not console.is_terminal:
        said = time.monotonic()

        def say(done: int, total: int | None) -> None:
            nonlocal said
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                console.print(f"{what}: {done} of {total or '?'}", soft_wrap=True)

        yield say
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
