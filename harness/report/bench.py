"""The tables of `harness bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.report.terminal import print_lines, print_table, si

if TYPE_CHECKING:  # these modules load torch
    from harness.training.bench import Packing, TrainSpeed


def print_train_speed(speed: TrainSpeed) -> None:
    rows = [
        (
            loop.loop,
            "compiled" if loop.compiled else "",
            si(loop.tokens_per_second),
            "unknown" if loop.mfu is None else f"{loop.mfu:.1%}",
            f"{loop.ratio:.2f} [{loop.low:.2f}, {loop.high:.2f}]",
            f"{loop.processor_ratio:.2f}",
        )
        for loop in speed.loops
    ]
    title = f"training {speed.model}, {si(speed.params_non_embedding)} non-embedding parameters"
    title += f", {speed.precision}, {speed.threads} threads"
    columns = ("loop", "", "tokens/s", "MFU", "ours is faster by", "in processor time")
    print_table(title, columns, rows)
    best = speed.best_other
    how = " compiled" if best.compiled else ""
    print_lines(f"Ours takes {best.ratio:.2f} times the tokens of the best other, {best.loop}{how}.", "")
    for loop, reason in speed.left_out.items():
        print_lines(f"{loop} left out: {reason}", "")


def print_packing(found: Sequence[Packing]) -> None:
    rows = [
        (
            each.model,
            si(each.one_thread),
            si(each.all_threads),
            si(each.side_by_side),
            f"{each.ratio:.2f} [{each.low:.2f}, {each.high:.2f}]",
        )
        for each in found
    ]
    cores = found[0].cores
    columns = ("model", "1 thread", f"{cores} threads", f"{cores} cells, 1 core each", "against the better")
    print_table("tokens/s of the machine, one cell at a time and side by side", columns, rows)


def print_fit_speed(found: dict[str, Any]) -> None:
    """Ours and each reference: seconds, objective, standard errors on the same resamples."""
    ours, references = found["ours"], found["references"]
    rows = [(ours["procedure"], f"{ours['seconds']:.3f}", "", "", f"{ours['objective']:.9g}")]
    for one in references:
        error = f"± {one['seconds_standard_error']:.1f}"
        rows.append(
            (
                one["procedure"],
                f"{one['seconds']:.1f}",
                error,
                f"{one['ratio']:.0f}x",
                f"{one['objective']:.9g}",
            )
        )
    title = f"optimum and 4000 bootstraps of the Chinchilla law on {found['rows']} rows, processor seconds"
    print_table(title, ("procedure", "seconds", "", "ratio", "objective"), rows)
    print_lines(sampling(found["sample"]), "")
    names = list(ours["standard_errors"])
    errors = [
        ("ours", ours["bootstraps"], ours["standard_errors"]),
        ("ours, same resamples", references[0]["bootstraps"], ours["standard_errors_same_resamples"]),
        *((one["procedure"], one["bootstraps"], one["standard_errors"]) for one in references),
    ]
    table = [(label, str(count), *(f"{values[n]:.4g}" for n in names)) for label, count, values in errors]
    print_table("standard errors", ("procedure", "bootstraps", *names), table)


def sampling(share: float) -> str:
    """How the references' seconds came about."""
    if share == 1:
        return "Every one of the references' 4500 L-BFGS-B starts and 4000 BFGS bootstraps was run."
    return (
        f"Of the references' 4500 L-BFGS-B starts and 4000 BFGS bootstraps {share:.1%} were run, drawn at "
        "random, and the mean of each scaled up; full=true runs all."
    )


def print_growth(found: dict[str, Any]) -> None:
    """Large cases in processes of their own, and how cost grows."""
    rows = [
        (
            f"{one['rows']:,} x {one['bootstraps']:,}",
            f"{one['seconds']:.2f}",
            f"{one['processor_seconds']:.2f}",
            f"{one['peak_bytes'] / 2**20:.0f} MiB",
        )
        for one in found["costs"]
    ]
    print_lines("")
    print_table("ours", ("rows x bootstraps", "seconds", "processor seconds", "peak memory"), rows)
    slopes = found["slopes"]
    print_lines(
        f"Cost grows as rows^{slopes['rows']:.2f} (1,000 to 10,000) and as "
        f"bootstraps^{slopes['bootstraps']:.2f} (1,000 to 16,000)."
    )
