"""How many callers this machine holds in real time, by the C120 rule.

C120 [ncannings/fastconformer-trt, docs/09-live-streaming.md]: the largest number of callers that
holds a trial of 120 s, begun over 10 s, where at most 0.1 % of the chunks wait longer than one
chunk and the 95th percentile from flush to final is within 1,000 ms. A voice agent wants its final
sooner, so the number within 100 ms is searched for as well. A fresh process for each trial.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from nemotron_voice.bench.fresh_process import Progress, in_fresh_process
from nemotron_voice.bench.search import largest
from nemotron_voice.bench.subject import Subject
from nemotron_voice.bench.trial import TrialOptions, run_trial, verdict

C120_LIMIT_MS: Final = 1_000.0  # of the rule
AGENT_LIMIT_MS: Final = 100.0  # of this project: an agent's whole answer is due within 800 ms
_ATTEMPTS: Final = 2  # at a trial that proves nothing, e.g. because of another program


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Which numbers of callers are tried."""

    final_limits_ms: tuple[float, ...] = (AGENT_LIMIT_MS, C120_LIMIT_MS)
    start: int = 4
    most: int = 10_000
    resolution: float = 0.05  # share of the answer


@dataclass(slots=True)
class _Trials:
    """Each number of callers is tried once, whatever the bound."""

    subject: Subject
    options: TrialOptions
    progress: Progress
    made: dict[int, dict[str, Any]] = field(default_factory=dict)

    def holds(self, callers: int, final_limit_ms: float) -> bool:
        if callers not in self.made:
            self.made[callers] = self._try(callers, final_limit_ms)
        return verdict(self.made[callers], final_limit_ms)[0] == "holds"

    def _try(self, callers: int, final_limit_ms: float) -> dict[str, Any]:
        for attempt in range(1, _ATTEMPTS + 1):
            self.progress(f"{callers} callers: {self.options.duration_s:g} s ...")
            trial = in_fresh_process(run_trial, self.subject, self.options, callers)
            said, why = verdict(trial, final_limit_ms)
            self.progress(describe(trial, said, why))
            if said != "refused" or attempt == _ATTEMPTS:
                break
        return trial


def measure(
    subject: Subject, trial: TrialOptions, search: SearchOptions, progress: Progress
) -> dict[str, Any]:
    """Search for the largest number of callers within each bound.

    Returns:
        "capacity": for each bound the number, and what the trial one step above it broke on;
        "trials": everything that was seen in each.
    """
    trials = _Trials(subject, trial, progress)
    capacity = [_search(trials, limit_ms, search) for limit_ms in sorted(search.final_limits_ms)]
    return {
        **asdict(subject),
        "latency_ms": trial.latency_ms,
        "duration_s": trial.duration_s,
        "capacity": capacity,
        "trials": [trials.made[number] for number in sorted(trials.made)],
    }


def _search(trials: _Trials, limit_ms: float, search: SearchOptions) -> dict[str, Any]:
    """The largest number within one bound, and what the next one tried broke on."""
    held = [number for number in trials.made if trials.holds(number, limit_ms)]
    failed = [number for number in trials.made if number not in held]
    callers = largest(
        lambda number: trials.holds(number, limit_ms),
        start=search.start,
        most=search.most,
        resolution=search.resolution,
        low=max((number for number in held if number < min(failed, default=number + 1)), default=0),
        high=min(failed, default=None),
    )
    trials.progress(f"p95 final within {limit_ms:g} ms: {callers} callers")
    beyond = min((number for number in trials.made if number > callers), default=None)
    said, why = verdict(trials.made[beyond], limit_ms) if beyond else ("not tried", "")
    return {
        "final_limit_ms": limit_ms,
        "callers": callers,
        "next_tried": beyond,
        # "refused" here: the load generator set the limit, and the engine may hold more.
        "next_verdict": said,
        "next_reason": why,
    }


def describe(trial: dict[str, Any], said: str, why: str) -> str:
    """A trial in one line."""
    if "error" in trial:
        return f"{trial['callers']} callers: {said}: {why}"
    final = " / ".join("-" if ms is None else f"{ms:.0f}" for ms in trial["final_ms"].values())
    return (
        f"{trial['callers']} callers: {said}{f': {why}' if why else ''} "
        f"(final p50 / p95 / p99 {final} ms, {trial['chunks']['late']} late chunks, "
        f"{trial['process_cores']} cores, {trial['load']['cores']} of them the load)"
    )
