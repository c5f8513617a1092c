"""Rows: SQLAlchemy Core over SQLite or Postgres. Every change of state is a compare-and-set on a row."""
