"""Report the utterances that the chosen backbone cannot spell, before a round is run."""

from annotator.i18n import say_many
from annotator.project import Project
from annotator.rounds.cache import Cache
from model.backbones.fingerprint import stamp
from model.prompts.spelling import count_unspelled, tokenizer_file
from store import rounds, utterances

_cache: Cache[int] = Cache()


def about_spelling(project: Project) -> list[str]:
    """Return a notice about utterances that the backbone of the next round cannot spell, if it is on this machine."""
    backbone = project.config.backbone
    file = tokenizer_file(backbone, rounds.revision_of(project.db, backbone))
    if file is None:
        return []
    sizes = tuple(utterances.count_slices(project.db).items())
    key = str(project.folder.resolve()), str(file), tuple(stamp(file)), sizes
    texts = (one.text for one in utterances.iterate(project.db))
    try:
        return unspelled_notice(_cache.get(key, lambda: count_unspelled(file, texts)), backbone)
    except (OSError, ValueError):  # loading the backbone reports it
        return []


def unspelled_notice(count: int, backbone: str) -> list[str]:
    """Return the notice about so many utterances; empty for none."""
    if not count:
        return []
    return [
        say_many(
            "{n:,} utterance has characters that {backbone} cannot spell. It may read it like another.",
            "{n:,} utterances have characters that {backbone} cannot spell. It may read some of them alike.",
            count,
            backbone=backbone,
        )
    ]
