"""Boards: which results may stand in one table, and the figures of each row.

A board holds the entries that met the same samples under the same attack: one data set identity, one attack
fingerprint. Whatever differs in either is another board. Accuracies are computed from the integer counts of the
database's views, in class order, so that the same database gives the same bytes on every machine.

    counts.py     what the database says of one checkpoint
    assemble.py   boards(store): the boards of a database
    values.py     a board, its rows and their figures
    columns.py    what a board says of a row: a new figure goes here
    layout.py     the tables that boards are shown as
"""

from bench.report.boards.assemble import boards
from bench.report.boards.columns import SORTS
from bench.report.boards.counts import EVERYTHING, Queryable, Scope
from bench.report.boards.values import CLEAN, Board, Row, Score, arenas, tell_apart

__all__ = [
    "CLEAN",
    "EVERYTHING",
    "SORTS",
    "Board",
    "Queryable",
    "Row",
    "Scope",
    "Score",
    "arenas",
    "boards",
    "tell_apart",
]
