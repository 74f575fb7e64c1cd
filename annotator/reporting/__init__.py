"""Figures of answers and rounds: summary, stopping advice, sentences, charts and the HTML report."""
