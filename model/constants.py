"""Every number that was fitted to the public data sets, in one place.

A number belongs here if it was chosen because predictions, probabilities or questions on labeled data were better with
it. Definitions, tolerances, published values, limits of machines and of patience, and choices of what a user gets stay
where they are used. `python -m benchmarks.constants` compares each with its neighbors, on all data sets and with each
left out; docs/calibration.md has the table.

They are read as attributes, as in `constants.PENALTY`, so that one assignment changes them everywhere.
"""

# The quick classifier
PENALTY = 20.0  # inverse, of a trained head
ZERO_SHOT_SHARES = (1.0, 0.5)  # of the similarity heads, meaning and spelling, before any answer
MEANING_LAYER, ANSWER_LAYER = 0.5, 0.6  # share of the layers below the hidden states that are read

# A round
PROBE_WEIGHT = 0.6  # of the quick classifier in the blend with the adapter

ADAPTED_FROM = 0.5  # share of the layers that LoRA leaves as they are
UPPER_RATE = 2.0  # multiple of the learning rate for all layers if only those above are adapted

# Calibration
ROUND_SPREAD = 0.3  # prior deviation of a quick classifier's log temperature, as seen over data sets and seeds
BIAS_SPREAD = 0.25  # prior deviation of a label's bias, in nats
ADAPTER_SPREAD = 0.5  # prior deviation of a round's log temperature, times the share of the adapter
SLOPE = -0.4  # change of a row's log temperature with its normalized entropy, in trained rounds

# Guarantees, questions and advice
SAFETY_SPREADS = 3.0  # a sample lucky enough to pass has also made the temperature too low, so it is raised by these
DIVERSE = 5.0  # candidates, as a multiple of the batch, from which diverse ones are chosen
STEADY = 0.97  # kappa from which two rounds count as agreeing
