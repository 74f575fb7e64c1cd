"""What the answers and rounds show: summary, advice, texts, charts and the HTML report."""
