"""What is done with baselines: accept a run, track a series, gate a change."""

from pathlib import Path

from harness.comparing.accuracy import accuracy_findings, asked_differently, scored
from harness.comparing.cells import run_finding
from harness.comparing.comparable import reasons_against_run
from harness.comparing.compared import Ran, comparison
from harness.comparing.counters import Named, backwards, counter_findings, counters_of
from harness.comparing.finding import ComparedSide, Comparison, Finding
from harness.comparing.launching import Launch
from harness.comparing.noise import noise_for
from harness.comparing.options import Options
from harness.comparing.sides import arm_of, cell_of, label_of, load, samples_of
from harness.stored.trials import Trial
from harness.tracking.baselines import Baseline, accept, accepted, key_of, latest
from harness.tracking.history import remember, row_of, series_of
from harness.tracking.nightly import nightly_findings

# The fixed run that a gate makes; more overrides come after it.
GATE_RUN = ("experiment=gate",)
HISTORY_SIDE = ComparedSide(name="the last valid runs")


def accept_trial(path: Path, reason: str, options: Options) -> Baseline:
    """Accept the one trial that a path names; raises ValueError of another number or a bad run."""
    loaded = load(path)
    if len(loaded.trials) != 1:
        problems = "; ".join(loaded.problems) or f"{path} holds {len(loaded.trials)} trials"
        raise ValueError(f"accept takes one trial: {problems}")
    return _accepted(loaded.trials[0], reason, options)


def track(path: Path, options: Options) -> Comparison:
    """Add trials to the history, each judged against the runs before it."""
    loaded, folder = load(path), Path(options.baselines)
    findings = [
        run_finding(Named("-", "run"), "not_comparable", problem) for problem in loaded.problems
    ]
    for trial in loaded.trials:
        record = trial.record
        named, reasons = Named(cell_of(record), label_of(record)), reasons_against_run(record)
        key = key_of(record)
        if key is None:
            findings.append(run_finding(named, "not_comparable", "a record without a cell"))
            continue
        remember(folder, row_of(record))
        if reasons:
            failed = record.run.status != "ok"
            found = run_finding(
                named, "errored" if failed else "not_comparable", "; ".join(reasons)
            )
            findings.append(found)
            continue
        noise = noise_for(folder, record)
        findings += nightly_findings(
            series_of(folder, key), record, options.gated, options.rule, noise
        )
    return comparison(options, HISTORY_SIDE, ComparedSide(name=str(path)), Ran(findings))


def gate(
    options: Options, launch: Launch, repository: Path, reason: str | None = None
) -> Comparison:
    """Run the fixed experiment; counters and answers must be those of the accepted baseline.

    Latencies are not looked at, so that any machine will do. reason: accept what comes out.
    """
    trial = launch(repository, [*GATE_RUN, *options.run], options.timeout_s)
    if reason is not None:
        _accepted(trial, reason, options)
    findings, name = held_to_baseline(trial, options)
    return comparison(
        options, ComparedSide(name=name), ComparedSide(name="working tree"), Ran(findings)
    )


def held_to_baseline(trial: Trial, options: Options) -> tuple[list[Finding], str]:
    """Counters and answers of a run against what was accepted, and the name of that."""
    record, folder = trial.record, Path(options.baselines)
    named = Named(cell_of(record), label_of(record))
    reasons, arm, key = reasons_against_run(record), arm_of(record, options.arm), key_of(record)
    if reasons or arm is None or key is None:
        failed = record.run.status != "ok"
        detail = "; ".join(reasons) or "no arm or no cell"
        return [run_finding(named, "errored" if failed else "not_comparable", detail)], "a baseline"
    if fell := backwards(arm).names:
        detail = f"counters went backwards: {', '.join(fell)}"
        return [run_finding(named, "not_comparable", detail)], "a baseline"
    baseline = latest(folder, key)
    if baseline is None:
        return [run_finding(named, "not_comparable", _missing(folder))], "no baseline"
    base, candidate = baseline.scored(), scored(samples_of(trial, options.arm))
    asked = asked_differently(base, candidate)
    if asked:
        return [run_finding(named, "not_comparable", "; ".join(asked))], baseline.label
    accuracy = accuracy_findings(named, base, candidate, options.score_rule)
    counters = counter_findings(
        named, [baseline.counted()], [counters_of(arm)], options.counter_tolerance
    )
    return [*accuracy, *counters], f"baseline of {baseline.accepted_at:%Y-%m-%d}"


def _accepted(trial: Trial, reason: str, options: Options) -> Baseline:
    reasons = reasons_against_run(trial.record)
    if reasons:
        raise ValueError(
            f"{trial.folder}: not accepted, the run is not valid: {'; '.join(reasons)}"
        )
    return accept(Path(options.baselines), trial, reason, options.arm)


def _missing(folder: Path) -> str:
    problems = "; ".join(accepted(folder).problems)
    return (
        f"no accepted baseline of this cell and benchmark in {folder}"
        f"{f' ({problems})' if problems else ''}: settings, weights, tasks or metrics have "
        'changed; if that is meant, make gate ARGS="reason=..." accepts a new one'
    )
