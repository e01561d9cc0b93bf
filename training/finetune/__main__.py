"""`python -m training.finetune`: see the package."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nemotron_voice.cli.options import whole_numbers
from nemotron_voice.errors import ConfigurationError, NemotronVoiceError
from nemotron_voice.evaluation.manifest import Clip, ManifestOptions, read_manifest
from nemotron_voice.languages import BY_CODE, READY, Locale, add, free_slot
from nemotron_voice.model.checkpoint import load_checkpoint
from training.finetune import checkpoint, data, report, vocabulary
from training.finetune.recipe import LAST, Recipe, frozen_but, train

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="""[bold]Examples[/bold]

  python -m training.finetune --model nemotron.nemo --train greek.jsonl=2 --keep old.jsonl \\
      --test greek=greek-test.jsonl --test old=old-test.jsonl --output out --steps 20000

  python -m training.finetune --model demo --train hindi.jsonl --keep old.jsonl \\
      --add-pieces 240 --test hindi=test.jsonl --output out
"""
)
def finetune(
    train_on: Annotated[
        list[str],
        typer.Option(
            "--train",
            metavar="MANIFEST[=WEIGHT]",
            help="What is learnt; repeat for more. Give the old languages too (--keep), or they "
            "are forgotten. The weight says how often a set is drawn.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of everything made.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MANIFEST[=WEIGHT]",
            help="As --train, of what the model knows already: where words have times, the base's "
            "own answers are learnt beside the texts, so that less is forgotten.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A .nemo file, or demo (the bundled checkpoint).")
    ] = "demo",
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MANIFEST",
            help="Held-out clips, heard before and after; repeat: the new and the old languages.",
        ),
    ] = None,
    latency_ms: Annotated[
        str, typer.Option(help="Modes that the tests are heard in: what you deploy.")
    ] = "80",
    new_locale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE:LANGUAGE:REGION:NATIVE[:SLOT]",
            help="A locale beside the model's 40, ca-ES:Catalan:Spain:català; its prompt slot is "
            "the dictionary's own (id-ID) or the last free one.",
        ),
    ] = None,
    add_pieces: Annotated[
        int,
        typer.Option(
            help="New pieces at most, where the tokenizer lacks the language's letters. The "
            "released checkpoint's has those of all 40 locales.",
            min=0,
        ),
    ] = 0,
    trainable: Annotated[
        str,
        typer.Option(
            help="all; blocks (subsampling frozen: less to compute on a CPU); or decoder "
            "(encoder frozen: terms and spelling, hardly a new language)."
        ),
    ] = "all",
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=1)] = 2_000,
    rate: Annotated[float, typer.Option(help="Learning rate at its highest.")] = 3e-4,
    new_rows_steps: Annotated[
        int,
        typer.Option(
            help="Batches before these in which only the rows of new pieces learn (of data with "
            "word times).",
            min=0,
        ),
    ] = 120,
    hold: Annotated[
        float,
        typer.Option(
            help="Weight of the base's own answers to what is to be kept, beside its texts' 1.",
            min=0,
        ),
    ] = 1.0,
    base_share: Annotated[
        float,
        typer.Option(
            help="Share of the base in the encoder's weights at the end: less is forgotten, and "
            "less learnt. With --resume, another share of a run that is done takes seconds.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    batch_s: Annotated[float, typer.Option(help="Seconds of speech in a batch.")] = 60.0,
    average: Annotated[
        float, typer.Option(help="Decay of the moving average that is kept; 0: the last weights.")
    ] = 0.995,
    telephone: Annotated[
        float, typer.Option(help="Share of clips heard as through a telephone.", min=0, max=1)
    ] = 0.25,
    noise: Annotated[
        Path | None, typer.Option(help="Lhotse manifest of noise recordings to mix in.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, 32-true, bf16-mixed: Lightning's.")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that load audio.", min=0)] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the network.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
) -> None:
    """Fine-tune a checkpoint: manifests in, a checkpoint that the engine loads out.

    Writes OUTPUT/model.nemo, report.md, results.json, and the hypotheses before and after.
    """
    if trainable not in {"all", "blocks", "decoder"}:
        raise ConfigurationError(f"--trainable {trainable!r} must be all, blocks or decoder")
    latencies = whole_numbers("--latency-ms", latency_ms)
    run = output / "run"
    if (run / LAST).exists() and not resume:
        raise ConfigurationError(
            f"{output} holds a run already; add --resume to go on with it, or take another --output"
        )
    added = [_added_locale(text) for text in new_locale or ()]
    sources = data.read_sources(train_on) + data.read_sources(keep or [], keep=True)
    tests = _read_tests(test or [])
    base = checkpoint.open_model(model, output / "tokenizer-of-base")
    languages = _languages(model, base, sources, added)
    checkpoint.give_slots(base, added)
    texts = {
        code: [clip.text for source in sources for clip in source.clips if clip.locale == code]
        for code in dict.fromkeys(code for source in sources for code in source.locales)
    }
    known = checkpoint.processor_of(base).get_piece_size()
    base = _with_vocabulary(base, texts, add_pieces, output)
    new_pieces = checkpoint.processor_of(base).get_piece_size() - known
    learning = frozen_but(base, trainable)
    _say(f"{learning / 1e6:.1f} M weights learn, {sum(s.hours for s in sources):.2f} h of speech")
    before = report.kept(output / "hypotheses", list(tests), "before") if resume else None
    if before is None and tests:
        _say("hearing the test sets with the base")
        before = report.evaluate(model, tests, latencies)
        report.keep(before, output / "hypotheses", "before")

    recipe = Recipe(
        steps=steps,
        rate=rate,
        warmup_steps=min(100, max(1, steps // 10)),
        new_rows_steps=new_rows_steps,
        batch_s=batch_s,
        average=average,
        hold=hold,
        base_share=base_share,
        seed=seed,
        precision=precision,
        threads=threads,
    )
    manifests = []
    tokenizer = checkpoint.processor_of(base)
    tag_of = cache(partial(vocabulary.tag_spelling, tokenizer))  # it reads the whole vocabulary

    def tag_pieces(locale: str) -> list[int]:
        return [int(tokenizer.piece_to_id(piece)) for piece in tag_of(locale).pieces]

    for number, source in enumerate(sources):
        path = output / "manifests" / f"{number}-{source.manifest.stem}.jsonl"
        data.write_manifest(source, tag_of, path)
        manifests.append((path, source.weight))
    loader = data.loader_config(
        manifests,
        dict(base.cfg.model_defaults.prompt_dictionary),
        batch_s=batch_s,
        seed=seed,
        workers=workers,
        telephone=telephone,
        noise=noise,
    )
    began = time.monotonic()
    aligned = all(data.is_aligned(clip) for source in sources for clip in source.clips)
    _say(f"learning {'along the times of words' if aligned else 'by the full sum over paths'}")
    train(
        base,
        loader,
        recipe,
        run,
        tag_of=tag_pieces if aligned else None,
        base=checkpoint.as_it_is(base) if keep or base_share else None,
        new_pieces=new_pieces,
        resume=resume,
    )
    minutes = _minutes_in_all((time.monotonic() - began) / 60, run / "minutes.txt", resume=resume)
    tuned = output / "model.nemo"
    checkpoint.save(base, tuned, languages)
    _say(f"wrote {tuned} after {minutes:.1f} min")
    if before is None:
        return
    _say("hearing the test sets with the fine-tuned checkpoint")
    after = report.evaluate(tuned, tests, latencies)
    report.keep(after, output / "hypotheses", "after")
    head = (
        f"# {model}, fine-tuned\n\n{data.describe(sources)}\n- {steps} steps of {batch_s:g} s at "
        f"{rate:g}, {trainable} weights, {minutes:.0f} minutes"
    )
    details: dict[str, Any] = {
        "model": model,
        "recipe": asdict(recipe),
        "trainable": trainable,
        "minutes": round(minutes, 1),
        "train": [
            {
                "manifest": source.manifest.name,
                "clips": len(source.clips),
                "hours": round(source.hours, 3),
                "weight": source.weight,
                "locales": source.locales,
            }
            for source in sources
        ],
    }
    print(report.write(before, after, head, details, output))


def _minutes_in_all(now: float, path: Path, *, resume: bool) -> float:
    """What was spent before a run was cut off counts, too."""
    before = float(path.read_text()) if resume and path.exists() else 0.0
    path.write_text(f"{before + now:.2f}\n")
    return before + now


def _read_tests(named: list[str]) -> dict[str, list[Clip]]:
    tests = {}
    for text in named:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise ConfigurationError(f"--test {text!r} is not NAME=MANIFEST")
        tests[name] = read_manifest(Path(path), ManifestOptions())
    return tests


def _added_locale(text: str) -> Locale:
    """A locale that the model's 40 lack, made known in this process."""
    parts = text.split(":")
    if len(parts) not in {4, 5} or not all(parts) or not (len(parts) == 4 or parts[4].isdigit()):
        raise ConfigurationError(f"--new-locale {text!r} is not CODE:LANGUAGE:REGION:NATIVE[:SLOT]")
    slot = int(parts[4]) if len(parts) == 5 else free_slot(parts[0])
    locale = Locale(parts[0], parts[1], parts[2], parts[3], READY, slot, ())
    add(locale)
    return locale


def _languages(
    model: str, base: Any, sources: list[data.Source], added: list[Locale]
) -> list[str] | None:
    """Locales of the fine-tuned checkpoint: the base's and the new ones."""
    if base.cfg.get("languages") is None and not added:
        return None  # the released model's prompt dictionary says it
    known = list(load_checkpoint(model).languages)
    return [*known, *(c for s in sources for c in s.locales if c not in known)]


def _with_vocabulary(base: Any, texts: dict[str, list[str]], add_pieces: int, output: Path) -> Any:
    """The model, its tokenizer checked and, where it must be, extended."""
    lacking = _lacking(base, texts)
    if lacking and not add_pieces:
        missing = "".join(dict.fromkeys("".join(lacking.values())))
        raise ConfigurationError(
            f"the tokenizer has no piece for {missing!r} of {', '.join(lacking)}; add "
            "--add-pieces 200, or more for scripts of many letters"
        )
    if lacking:
        new = [text for code in lacking for text in texts[code]]
        base = checkpoint.with_more_pieces(base, new, add_pieces, output / "tokenizer")
        _say(f"the tokenizer now has {checkpoint.processor_of(base).get_piece_size()} pieces")
        still = _lacking(base, {code: texts[code] for code in lacking})
        if still:
            raise ConfigurationError(
                f"{add_pieces} new pieces aren't enough for {''.join(still.values())!r}"
            )
    return base


def _lacking(base: Any, texts: dict[str, list[str]]) -> dict[str, str]:
    """Locales with characters that the tokenizer lacks."""
    lacking = {}
    for code, own in texts.items():
        coverage = vocabulary.check(checkpoint.processor_of(base), own, code)
        _say(f"{BY_CODE[code].name}: {coverage}")
        if coverage.unknown:
            lacking[code] = "".join(character for character, _ in coverage.unknown)
    return lacking


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        app(standalone_mode=True)
    except NemotronVoiceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
