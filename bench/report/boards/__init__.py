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

from bench.report.boards.assemble import boards as boards
from bench.report.boards.columns import SORTS as SORTS
from bench.report.boards.counts import EVERYTHING as EVERYTHING, Queryable as Queryable, Scope as Scope
from bench.report.boards.values import (
    CLEAN as CLEAN,
    Board as Board,
    Row as Row,
    Score as Score,
    Setting as Setting,
    arenas as arenas,
    tell_apart as tell_apart,
)
