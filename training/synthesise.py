"""Synthesises the corpus: audio, and a manifest that grows clip by clip.

`python -m training.synthesise --hours 3 --jobs 2`

Run again, it goes on where it stopped. A quarter of an hour of training speech per language at
most comes first, then dev and test (a), then the rest, always the five languages in turn,
so that training can start long before the end.
"""

import argparse
import json
import logging
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from training.corpus import CorpusPlan, Utterance
from training.kokoro import OUTPUT_RATE, Kokoro
from training.kokoro_graph import fetch
from training.voices import held_out_speaker, training_speaker

FIRST_TRAIN_S = 15 * 60.0
CLIP_S = 2.05  # of a training clip, on average (measured)
# English has the most voices, and the held-out ones are the farthest from those trained on.
TRAIN_SHARES = {"en-US": 3.0, "es-ES": 1.1, "fr-FR": 1.1, "it-IT": 1.3, "pt-BR": 1.3}
DEV_CLIPS, TEST_CLIPS = 20, 40

# OpenVINO keeps what it compiled for each length: 3 GB after 1,000 clips.
CLIPS_PER_PROCESS = 600

_log = logging.getLogger(__name__)
_kokoro: Kokoro | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One clip to be made."""

    split: str
    utterance: Utterance
    speaker: str
    speed: float
    margin_s: float
    work: Path


def train_sizes(hours: float, languages: Sequence[str]) -> dict[str, int]:
    """Training clips of each language for so many hours in all."""
    shares = {language: TRAIN_SHARES.get(language, 1.0) for language in languages}
    clips = hours * 3600 / CLIP_S / sum(shares.values())
    return {language: round(clips * share) for language, share in shares.items()}


def jobs(
    work: Path,
    seed: int,
    hours: float,
    languages: Sequence[str],
    grammar: Path | None,
    held_out: dict[str, int],
) -> Iterator[Job]:
    """Every clip in the order in which it is made; the same for the same seed.

    `held_out` has the clips of each language in "dev" and in "test_a".
    """
    sizes = train_sizes(hours, languages)
    plans = {
        language: CorpusPlan(language, seed, max(size, 900), grammar)
        for language, size in sizes.items()
    }
    _write_texts(plans, work)
    first = {code: min(round(FIRST_TRAIN_S / CLIP_S), size) for code, size in sizes.items()}
    texts = {code: plan.train[: first[code]] for code, plan in plans.items()}
    yield from _interleaved("train", texts, work, seed)
    for split, size in held_out.items():
        texts = {code: plan.held_out(split, size) for code, plan in plans.items()}
        yield from _interleaved(split, texts, work, seed)
    texts = {code: plan.train[first[code] : sizes[code]] for code, plan in plans.items()}
    yield from _interleaved("train", texts, work, seed)


def _interleaved(
    split: str, texts: dict[str, list[Utterance]], work: Path, seed: int
) -> Iterator[Job]:
    speaker_of = training_speaker if split == "train" else held_out_speaker
    # Every language at its own pace, so that all end together.
    places = [((n + 1) / len(own), item) for own in texts.values() for n, item in enumerate(own)]
    for _, utterance in sorted(places, key=lambda place: place[0]):
        rng = random.Random(f"{seed}/{utterance.id}")
        speaker = speaker_of(utterance.language, rng)
        speed, margin_s = rng.uniform(0.85, 1.25), rng.uniform(0.1, 0.2)
        yield Job(split, utterance, speaker, round(speed, 2), margin_s, work)


def _write_texts(plans: dict[str, CorpusPlan], work: Path) -> None:
    folder = work / "text"
    folder.mkdir(parents=True, exist_ok=True)
    for language, plan in plans.items():
        path = folder / f"{language}.txt"
        if not path.exists():
            path.write_text("\n".join(plan.sentences(5000)) + "\n", encoding="utf-8")


def _start(voices: Path) -> None:
    global _kokoro  # noqa: PLW0603 - a worker process holds its model this way
    _kokoro = Kokoro(voices)


def _make(job: Job) -> tuple[str, dict[str, object]]:
    assert _kokoro is not None
    item = job.utterance
    speech = _kokoro.speak(
        item.text, item.language, job.speaker, speed=job.speed, margin_s=job.margin_s
    )
    path = Path("audio") / job.split / item.language / f"{item.id}.flac"
    (job.work / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(job.work / path, speech.samples, OUTPUT_RATE, subtype="PCM_16")
    return job.split, {
        "id": item.id,
        "audio_filepath": f"../{path.as_posix()}",
        "duration": round(len(speech.samples) / OUTPUT_RATE, 4),
        "target_lang": item.language,
        "text": item.text,
        "kind": item.kind,
        "voice": job.speaker,
        "speed": job.speed,
        "words": [
            {"word": t.word, "start": round(t.start_s, 3), "end": round(t.end_s, 3)}
            for t in speech.words
        ],
    }


def _made(manifests: Path) -> set[str]:
    """The ids in the manifests; a last line cut off by an interruption is removed."""
    ids: set[str] = set()
    for path in manifests.glob("*.jsonl"):
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        path.write_bytes(whole)
        ids.update(json.loads(line)["id"] for line in whole.splitlines())
    return ids


def main() -> None:
    """Make every clip that is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--hours", type=float, default=3.0, help="training speech in all")
    parser.add_argument("--languages", nargs="*", default=list(TRAIN_SHARES))
    parser.add_argument("--grammar", type=Path, help="folder of grammars: another domain")
    parser.add_argument("--dev-clips", type=int, default=DEV_CLIPS, help="of each language")
    parser.add_argument("--test-clips", type=int, default=TEST_CLIPS, help="of each language")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--voices", type=Path, help="folder of Kokoro, if not WORK/voices")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    fetch(arguments.voices or arguments.work / "voices")
    manifests = arguments.work / "manifests"
    manifests.mkdir(parents=True, exist_ok=True)
    done = _made(manifests)
    missing = [
        job
        for job in jobs(
            arguments.work,
            arguments.seed,
            arguments.hours,
            arguments.languages,
            arguments.grammar,
            {"dev": arguments.dev_clips, "test_a": arguments.test_clips},
        )
        if job.utterance.id not in done
    ]
    _log.info("%d clips made, %d to make", len(done), len(missing))
    context = multiprocessing.get_context("spawn")
    columns = (*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[s]}"))
    with (
        Progress(*columns) as progress,
        context.Pool(
            arguments.jobs,
            _start,
            (arguments.voices or arguments.work / "voices",),
            CLIPS_PER_PROCESS,
        ) as pool,
    ):
        task = progress.add_task("synthesis", total=len(missing), s="")
        spoken_s = 0.0
        for split, line in pool.imap_unordered(_make, missing):
            with (manifests / f"{split}.jsonl").open("a", encoding="utf-8") as manifest:
                manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
            spoken_s += float(str(line["duration"]))
            progress.update(task, advance=1, s=f"{spoken_s / 60:.1f} min of speech")


if __name__ == "__main__":
    main()
