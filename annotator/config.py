"""Every default number of a project, with its reason: frozen, serialisable, stored with each round."""

from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from annotator.errors import BadInput
from model.catalog import STARTER
from model.recipe import Recipe


@dataclass(frozen=True)
class RoundConfig:
    """How a project's rounds are made. A change takes effect with the next round."""

    backbone: str = STARTER
    template: str = "definitions"
    recipe: Recipe = field(default_factory=Recipe)
    strategy: str = "margin"
    batch_size: int = 25  # about ten minutes of work: short enough that the model's advice is fresh
    audit_share: float = 0.2  # of each batch; 20 of the first 100 answers give accuracy within about 0.18
    retrain_every: int = 25  # new labels, then a round starts by itself; 0: only by the button
    minimum_labels: int = 10  # fewer train nothing that the instruction alone does not know
    score_limit: int = 10_000  # utterances a round scores, a random sample if there are more
    context_turns: int = 3  # turns before the utterance that the model reads
    show_suggestions: bool = True  # never on audit utterances, whatever this says
    seed: int = 0

    def to_json(self) -> str:
        """Write as JSON, nested recipe included."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "RoundConfig":
        """Read what `to_json` wrote; settings that a later version added take their defaults."""
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise BadInput(f"These settings cannot be read: {error}", "Restore them from a backup.") from error


_ADAPTER = TypeAdapter(RoundConfig)
