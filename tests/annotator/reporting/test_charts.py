"""Charts draw the requested values, where the two have differed."""

import re
from itertools import product

import pytest

from annotator.reporting.charts import PARTS, label_counts, svg
from annotator.reporting.summary import LabelCount


@pytest.mark.parametrize("there", [there for there in product((0, 1), repeat=4) if any(there)])
def test_a_part_of_the_labels_looks_the_same_whichever_others_there_are(there):
    drawn = svg(label_counts([LabelCount("promise", *there)]), "labels")
    bars = re.findall(r'<path aria-label="[^"]*part: ([^;"]*)[^>]* fill="([^"]*)"(?: opacity="([^"]*)")?', drawn)
    shown = [look for look, has in zip(PARTS.values(), there, strict=True) if has]
    assert [(part, fill, float(opacity or 1)) for part, fill, opacity in bars] == shown
