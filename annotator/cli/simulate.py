"""`annotator simulate`: estimate how many answers a finished project would have taken with this tool."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import click

from annotator.cli.terminal import FILE, FOLDER, console, progress_bar
from annotator.codebook.draft import read_codebook
from annotator.config import RoundConfig, changed_recipe
from annotator.methods.query_strategies import STRATEGIES, strategy_named
from annotator.simulation import oracle, report, runner
from annotator.simulation.runs import Run
from model.prompts.prompt import TEMPLATES
from store.files.exporters import write_text


def _numbers(_: click.Context, __: click.Parameter, text: str) -> list[int]:
    """Parse `0,1,2` or `0-4`."""
    try:
        parts = [part.split("-") for part in text.split(",")]
        return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]
    except ValueError as error:
        raise click.BadParameter("write numbers as 0,1,2 or 0-4") from error


def _counts(_: click.Context, __: click.Parameter, text: str) -> list[int]:
    """Parse `50,100,200`."""
    counts = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if min(counts) < 1:
        raise click.BadParameter("write numbers above 0 as 50,100,200")
    return counts


def _strategies(_: click.Context, __: click.Parameter, text: str) -> list[str]:
    return [strategy_named(name.strip()).name for name in text.split(",")]


_PROBE_ONLY = ["probe_weight=1"]
_CLASSIFIERS: dict[str, list[str]] = {
    "both": [],
    "lora": ["probe_weight=0"],
    "probe": _PROBE_ONLY,
    "scout": _PROBE_ONLY,  # the name of earlier versions
}


@click.command()
@click.argument("data", type=FILE)
@click.option("--context", type=FILE, help="File with other turns of the same conversations.")
@click.option("--codebook", type=FILE, help="YAML codebook; default: the labels in the file, without definitions.")
@click.option("--labels", default="100", show_default=True, callback=_counts, help="Total answers, as in 50,100,200.")
@click.option("--batch", type=click.IntRange(1), help="Answers per round; default: the smallest of --labels.")
@click.option("--rounds", "round_count", type=click.IntRange(1), help="Number of rounds, instead of --batch.")
@click.option(
    "--strategy",
    "strategies",
    default=RoundConfig.strategy,
    show_default=True,
    callback=_strategies,
    help=f"One or more of {', '.join(sorted(STRATEGIES))}.",
)
@click.option("--seeds", default="0", show_default=True, callback=_numbers, help="As in 0,1,2 or 0-4.")
@click.option(
    "--classifier",
    type=click.Choice(list(_CLASSIFIERS)),
    metavar="[both|lora|probe]",
    default="both",
    show_default=True,
    help="Classifier: the fine-tuned adapter (lora), the quick classifier (probe), or both combined as in a round.",
)
@click.option("--noise", type=click.FloatRange(0, 1), default=0.0, help="Share of wrong answers.")
@click.option("--annotators", type=click.IntRange(1), default=1, help="Simulated annotators, who take turns.")
@click.option("--backbone", default=RoundConfig.backbone, show_default=True)
@click.option("--template", type=click.Choice(list(TEMPLATES)), default=RoundConfig.template, show_default=True)
@click.option("--recipe", multiple=True, metavar="NAME=VALUE", help="Training setting, as in epochs=4; repeatable.")
@click.option("--pool", default=1000, show_default=True, help="Size of the pool: a random sample of training rows.")
@click.option("--test-limit", type=int, help="Test on a random sample of this many rows.")
@click.option("--everything", is_flag=True, help="Also answer the whole pool, once per seed, for comparison.")
@click.option("--keep", type=FOLDER, help="Folder for each round's logits and the known labels.")
@click.option("--json", "out", type=FILE, help="Write all figures to this file; the means are the first strategy's.")
@click.option("--report", "page", type=FILE, help="Write curves and a comparison with random sampling as HTML.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Sessions to run in parallel.")
@click.option("--finished", type=FILE, help="File of finished sessions, to resume an interrupted simulation.")
def simulate(
    data: Path,
    context: Path | None,
    codebook: Path | None,
    labels: Sequence[int],
    batch: int | None,
    round_count: int | None,
    strategies: list[str],
    seeds: Sequence[int],
    classifier: str,
    noise: float,
    annotators: int,
    backbone: str,
    template: str,
    recipe: Sequence[str],
    pool: int,
    test_limit: int | None,
    everything: bool,
    keep: Path | None,
    out: Path | None,
    page: Path | None,
    jobs: int,
    finished: Path | None,
) -> None:
    """Run the loop on a labeled file (columns text, label, split) with a simulated annotator."""
    changed = changed_recipe(RoundConfig().recipe, [*_CLASSIFIERS[classifier], *recipe])
    config = RoundConfig(backbone=backbone, template=template, recipe=changed)
    draft = read_codebook(codebook) if codebook else None
    most, count = max(labels), _rounds(labels, batch, round_count)
    plan = oracle.Plan(data, context, draft, most, count, pool, test_limit, noise, annotators, keep=keep, config=config)
    runs = []
    with progress_bar() as bar:
        task = bar.add_task("reading", total=1.0)
        listener = lambda stage, share, _: bar.update(task, completed=share, description=stage)  # noqa: E731
        for run in runner.replay(plan, strategies + [runner.EVERYTHING] * everything, seeds, finished, listener, jobs):
            runs.append(run)
            console.print(_sentence(run), highlight=False)
    summaries = {name: oracle.summarize([run for run in runs if run.strategy == name]) for name in strategies}
    for name, summary in summaries.items():
        scores = ", ".join(f"{score} {value:.3f}" for score, value in summary.items())
        console.print(f"{name}: {scores}", highlight=False)
    console.print(*report.sentences(runs), sep="\n", highlight=False)
    if out:
        settings = {"data": data.name, "labels": most, "rounds": count, "config": json.loads(config.to_json())}
        figures = {"runs": [run.as_dict() for run in runs], "strategies": summaries, **summaries[strategies[0]]}
        write_text(out, json.dumps({**settings, **figures}, indent=2))
    if page:
        write_text(page, report.page(runs, f"Simulation on {data.stem}"))


def _rounds(labels: Sequence[int], batch: int | None, count: int | None) -> int:
    """Return the number of rounds, with one ending at each of these numbers of answers. Raises click.UsageError."""
    every = Fraction(max(labels), count) if count else Fraction(batch or min(labels))
    for number in labels:
        if number % every:
            raise click.UsageError(
                f"No round ends at {number} answers: rounds end every {float(every):g} answers.\n"
                "Hint: Choose --batch or --rounds so that each value of --labels is a multiple of it."
            )
    return int(max(labels) / every)


def _sentence(run: Run) -> str:
    scores = ", ".join(f"{name} {getattr(run.metrics, name):.3f}" for name in oracle.SCORES)
    answers = f"{run.labels} answers ({run.trained_on} trained on, {run.audited_on} audit)"
    return f"{run.strategy}, seed {run.seed}, round {run.round}, {answers}: {scores}; n = {run.metrics.n}"
