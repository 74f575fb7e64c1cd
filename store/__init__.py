"""The project on disk: one folder with one SQLite database. This package handles rows, not models.

Read `migrations.py` first: the tables are the design. Each other module owns one family of tables, and its functions
are verbs of the domain (`annotations.record`, `queue.lease`). Every function takes an open database first.
"""
