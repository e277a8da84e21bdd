"""Two sides compared: what lies in a store, or two trees that are run here in turns."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.comparing.bench import SIDES, Bench, Tell
from harness.comparing.cells import compare_cell, matched, run_finding
from harness.comparing.comparable import reasons_against_pair, reasons_against_run
from harness.comparing.counters import Named
from harness.comparing.finding import (
    ComparedSide,
    Comparison,
    Finding,
    Rounds,
    exit_code,
    in_order,
)
from harness.comparing.interleaving import Side
from harness.comparing.launching import Launch
from harness.comparing.noise import Noise, noise_for
from harness.comparing.options import GIT, Options
from harness.comparing.sides import Loaded, cell_of, label_of, load
from harness.comparing.worktrees import Tree, tree_of


@dataclass(frozen=True)
class Ran:
    """What came of running two trees: findings, the values of each round, and remarks."""

    findings: list[Finding]
    rounds: Rounds = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def comparison(
    options: Options, base: ComparedSide, candidate: ComparedSide, ran: Ran
) -> Comparison:
    """Findings with the rule they were found by, and the exit code they make."""
    return Comparison(
        exit_code=exit_code(ran.findings, strict=options.strict),
        base=base,
        candidate=candidate,
        rule=options.rule_facts,
        rounds=ran.rounds,
        notes=ran.notes,
        findings=in_order(ran.findings),
    )


def compare_stored(options: Options) -> Comparison:
    """Trials against trials, cell by cell."""
    if options.base is None or options.candidate is None:
        raise ValueError("give base=... and candidate=..., paths of trials; or base=git:<rev>")
    sides = {"base": load(Path(options.base)), "candidate": load(Path(options.candidate))}
    findings = [
        run_finding(
            Named("-", side),
            "not_comparable",
            problem,
            # Beside others that can be read it is only told.
            gated=options.strict or not loaded.trials,
            metric=side,
        )
        for side, loaded in sides.items()
        for problem in loaded.problems
    ]
    ours, theirs = sides["base"], sides["candidate"]
    if ours.trials and theirs.trials:
        for cell in matched(ours.trials, theirs.trials):
            noise = noise_for(Path(options.baselines), (cell.candidate or cell.base)[0].record)
            findings += compare_cell(cell, options, noise)
    named = (_stored(options.base, ours), _stored(options.candidate, theirs))
    return comparison(options, *named, Ran(findings))


def compare_trees(options: Options, launch: Launch, repository: Path, tell: Tell) -> Comparison:
    """Both sides run here, in interleaved rounds; at least one of them is a revision."""
    with both_trees(options, repository) as trees:
        ran = run(Bench(trees, options, launch, tell))
        base, candidate = (_side(trees[side]) for side in SIDES)
        return comparison(options, base, candidate, ran)


def run(bench: Bench) -> Ran:
    """Warm up, see that the sides compare, then take rounds and decide."""
    if not bench.warm_up():
        return Ran(list(_failures(bench)))
    base, candidate = (bench.warm[side].record for side in SIDES)
    unusable = reasons_against_run(base) + reasons_against_run(candidate)
    if unusable or reasons_against_pair(base, candidate):
        return Ran(compare_cell(bench.cell(), bench.options, Noise()))
    noise = noise_for(Path(bench.options.baselines), base)
    judged = bench.judge(noise)
    findings = compare_cell(bench.cell(), bench.options, noise, judged)
    notes = [f"margin: noise from {noise.source}"]
    if judged.confirming_MN is not None:
        notes.append(f"{bench.options.rounds} fresh rounds were run to confirm a regression")
    if (
        base.cell is not None
        and candidate.cell is not None
        and base.cell.code == candidate.cell.code
    ):
        notes.append("both sides run the same algorithms, memory and backends")
    return Ran([*findings, *_failures(bench)], bench.values(), tuple(notes))


@contextmanager
def both_trees(options: Options, repository: Path) -> Iterator[dict[Side, Tree]]:
    """The trees of both sides, checked out where they are revisions."""
    for side, named in (("base", options.base), ("candidate", options.candidate)):
        if named is not None and not named.startswith(GIT):
            raise ValueError(f"{side}={named}: against git:<rev> only another git:<rev> is run")
    with ExitStack() as stack:
        base = stack.enter_context(tree_of(options.base, repository))
        candidate = stack.enter_context(tree_of(options.candidate, repository))
        yield {"base": base, "candidate": candidate}


def _failures(bench: Bench) -> Iterator[Finding]:
    """A run that left nothing is never passed over, however many others did."""
    for side in SIDES:
        for reason in bench.failures[side]:
            warm = bench.warm.get(side)
            label = side if warm is None else label_of(warm.record)
            cell = "-" if warm is None else cell_of(warm.record)
            yield run_finding(Named(cell, label), "errored", reason, metric=side)


def _side(tree: Tree) -> ComparedSide:
    return ComparedSide(name=tree.name, sha=tree.sha, dirty=tree.dirty)


def _stored(name: str, loaded: Loaded) -> ComparedSide:
    states = {trial.record.env.git for trial in loaded.trials}
    (git,) = states if len(states) == 1 else (None,)
    return ComparedSide(
        name=name, sha=None if git is None else git.sha, dirty=None if git is None else git.dirty
    )
