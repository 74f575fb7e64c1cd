"""Everything a training round needs, from the snapshot of answers to the next batch."""
