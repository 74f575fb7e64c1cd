"""The columns of an exported dataset, what each means, and how imported ones are named beside them."""

from store.files.exporters import Field

FIELDS = (
    Field("id", "text"),
    Field("text", "text"),
    Field("label", "text"),
    Field("given_label", "text"),
    Field("kind", "text"),
    Field("source", "text"),
    Field("annotator", "text"),
    Field("answers", "integer"),
    Field("answers_given", "text"),
    Field("unsure", "flag"),
    Field("comment", "text"),
    Field("conversation", "text"),
    Field("turn", "number"),
    Field("speaker", "text"),
    Field("slice", "text"),
    Field("round", "integer"),
    Field("strategy", "text"),
    Field("between_rounds", "flag"),
    Field("propensity", "number"),
    Field("pool_size", "integer"),
    Field("suggested_label", "text"),
    Field("suggested_probability", "number"),
    Field("withheld", "text"),
    Field("withheld_label", "text"),
    Field("withheld_probability", "number"),
    Field("codebook_version", "integer"),
    Field("milliseconds", "integer"),
    Field("at", "time"),
    Field("model_round", "integer"),
    Field("probabilities", "probabilities"),
    Field("acceptance", "integer"),
    Field("promise", "text"),
)

MEANINGS = {
    "id": "the id the utterance was imported with",
    "text": "the utterance",
    "label": "the label; empty where there is none, as `kind` says",
    "given_label": "the label that was given, also where it counts as another since, or as none",
    "kind": "`label`, `none_fits`, `disputed` (people's answers are tied), `skip` (people have only skipped it), or "
    "`out_of_use` where the label that was given has been retired or split",
    "source": "`expert`, `adjudicated` (by someone who saw what others had said), `given` (came with the file), "
    "`accepted` (the model's, accepted unseen on a promise) or `model` (its likeliest label, seen by nobody)",
    "annotator": "who answered, skipped or accepted; several are separated by semicolons",
    "answers": "how many people have answered, with a label or that none fits",
    "answers_given": "all that stands, as a JSON list of objects with `annotator`, `source`, `kind` and `label`; there "
    "is also a label that came with the file and that a person has replaced since; empty where a row is one answer",
    "unsure": "whether an annotator marked the answer as unsure",
    "comment": "what the annotator noted",
    "conversation": "the conversation it belongs to",
    "turn": "its place in the conversation",
    "speaker": "who said it",
    "slice": "`pool` (may be trained on) or `audit` (drawn at random, only for measuring)",
    "round": "the round that put the utterance before the annotator; empty before the first",
    "strategy": "how the utterance was chosen; `audit` and `random` are unbiased; `bulk` is an answer given at once to "
    "all that a search found, not necessarily read one by one",
    "between_rounds": "whether it was chosen after `round` and before the next, from the answers given up to then; "
    "empty where nobody was asked",
    "propensity": "the chance with which it was drawn; empty where it was chosen, not drawn",
    "pool_size": "how many utterances it was chosen from",
    "suggested_label": "what the annotator was shown; empty if nothing",
    "suggested_probability": "the calibrated probability shown with it",
    "withheld": "why a suggestion was not shown: `chance` (drawn, to measure what suggestions do) or `choice` (the "
    "annotator hides them); empty where it was shown or there was none",
    "withheld_label": "what it would have been",
    "withheld_probability": "the calibrated probability of that",
    "codebook_version": "the version of the codebook that the answer was given under",
    "milliseconds": "time from seeing the utterance to answering",
    "at": "when, in UTC",
    "model_round": "the round the probabilities come from",
    "probabilities": "the calibrated probability of every label, where the model has scored the utterance",
    "acceptance": "the number of the act by which the suggestion was accepted unseen; empty for any other label",
    "promise": "the precision that was certified for what that act accepted, on average, and how surely",
}
