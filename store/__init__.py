"""The project on disk: one folder, one SQLite database. It knows rows, and nothing of models.

Read `migrations.py` first: the tables are the design. Each other module owns one family of tables and speaks
in verbs of the domain (`annotations.record`, `queue.lease`). Every function takes an open database first.
"""
