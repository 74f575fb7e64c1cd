"""The settings of a project, with the reason for every default. They are immutable and stored with each round."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, TypeVar

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from annotator.errors import BadInput, Message, UnknownName
from annotator.methods.query_strategies import COLD, DEFAULT, STRATEGIES
from model.backbones.catalog import STARTER
from model.prompts.prompt import TEMPLATES
from model.recipe import FORMER, Count, Part, Recipe, Share, check_recipe, renamed

Natural = Annotated[int, Ge(0)]
T = TypeVar("T")


@dataclass(frozen=True)
class RoundConfig:
    """The settings of a project's rounds. A change takes effect with the next round."""

    backbone: str = STARTER
    template: str = "definitions"
    recipe: Recipe = field(default_factory=Recipe)
    strategy: str = DEFAULT  # query strategy once there are answers
    cold_strategy: str = COLD  # query strategy before that (see docs/label-efficiency.md for both)
    batch_size: Count = 25  # about ten minutes of work, so the next round comes soon
    audit_share: Share = 0.2  # of each batch; 20 of the first 100 answers give the accuracy to within about 0.18
    precision: Part = 0.95  # target for auto-accepted suggestions; determines the size of the audit sample
    per_conversation: Count = 3  # turns of one conversation in a batch; more of them add little
    spot_share: Share = 0.08  # of each batch, 2 of 25, is spot checks of auto-accepted suggestions
    retrain_every: Natural = 25  # new labels after which a round starts automatically; 0: only with the button
    minimum_labels: Natural = 10  # to train on; fewer add nothing to the zero-shot model
    score_limit: Count = 10_000  # utterances that a round scores; a random sample if there are more
    context_turns: Natural = 3  # turns before the utterance that the model reads
    show_suggestions: bool = True  # never on audit utterances, regardless of this setting
    withheld_share: Share = (
        0.1  # of suggestions is withheld at random; 1,000 answers then detect an anchoring effect of 0.1
    )
    seed: int = 0

    def to_json(self) -> str:
        """Return the settings as JSON, including the nested recipe."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "RoundConfig":
        """Read settings from JSON; those that a later version added take their defaults. Raises BadInput."""
        try:
            return _ADAPTER.validate_json(_with_current_names(text))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "all"
            raise BadInput(
                Message("“{place}” cannot be read: {msg}.", place=place, msg=first["msg"]), "Restore it from a backup."
            ) from error


def _with_current_names(text: str) -> str:
    """Return stored settings under their current names, a strategy that was removed as the default one.

    Text that is not JSON is returned unchanged.
    """
    with suppress(ValueError):
        stored = json.loads(text)
        if isinstance(stored, dict):
            removed = {name: DEFAULT for name in ("strategy", "cold_strategy") if stored.get(name) in _REMOVED}
            recipe = stored.get("recipe")
            return json.dumps(stored | removed | ({"recipe": renamed(recipe)} if isinstance(recipe, dict) else {}))
    return text


def settings_of(config: RoundConfig) -> dict[str, Any]:
    """Return every setting by name; names of the recipe begin with `recipe.`."""
    values = asdict(config)
    return values | {f"{_RECIPE}{name}": value for name, value in values.pop("recipe").items()}


def changed(config: RoundConfig, changes: Sequence[str]) -> RoundConfig:
    """Return the settings with changes written as `name=value`, or `recipe.name=value` for the recipe.

    Raises UnknownName and BadInput.
    """
    values = asdict(config)
    del values["recipe"]
    for change in changes:
        name, _, value = change.partition("=")
        if name.startswith(_RECIPE):
            continue
        if name not in values:
            raise UnknownName.among("setting", name, sorted(settings_of(config)))
        if value not in _NAMED.get(name, (value,)):
            raise UnknownName.among(name.replace("_", " "), value, sorted(_NAMED[name]))
        values[name] = value
    of_recipe = [change.removeprefix(_RECIPE) for change in changes if change.startswith(_RECIPE)]
    return replace(_validated(_ADAPTER, values), recipe=changed_recipe(config.recipe, of_recipe))


def changed_recipe(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Return the recipe with changes written as `name=value`. Raises UnknownName and BadInput."""
    values = asdict(recipe)
    for change in changes:
        name, _, value = change.partition("=")
        name = FORMER.get(name, name)
        if name not in values:
            raise UnknownName.among("recipe setting", name, sorted(values))
        values[name] = _read(name, value)
    made = _validated(TypeAdapter(Recipe), values)
    check_recipe(made)
    return made


def _read(name: str, value: str) -> Any:
    if name == "layers":
        return tuple(value.split(",")) if value else ()
    return None if name == "learning_rate" and value == "none" else value


def _validated(kind: TypeAdapter[T], values: Mapping[str, Any]) -> T:
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            Message(
                "“{value}” cannot be set to “{input}”: {msg}.",
                value=first["loc"][0],
                input=first["input"],
                msg=first["msg"],
            )
        ) from error


_RECIPE = "recipe."
_REMOVED = ("disagreement",)  # strategies of earlier versions
_ADAPTER = TypeAdapter(RoundConfig)
_NAMED: Mapping[str, Collection[str]] = {"strategy": STRATEGIES, "cold_strategy": STRATEGIES, "template": TEMPLATES}
