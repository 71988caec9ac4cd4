"""Every option of every verb with values that it was not made for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import typer
from hypothesis import assume, given, strategies as st

from bench.cli.command import app

from .attempt import attempt, copied, tries

SOUND = {
    "run": "run study.toml --db b.duckdb --dry-run",
    "train": "train natural --dataset digits --n 40 --model convnet-2 --epochs 1 --out new.safetensors",
    "select": "select at.safetensors --out new.safetensors",
    "evaluate": "evaluate at.safetensors --dataset digits --n 10 --attacks fgsm --checks none --db new.duckdb",
    "leaderboard": "leaderboard --db b.duckdb",
    "plot": "plot reliability --db b.duckdb --out new",
    "compare": "compare natural natural --db b.duckdb",
    "check": "check natural --against natural --db b.duckdb",
    "soundness": "soundness at.safetensors --db b.duckdb",
    "export": "export new --db b.duckdb",
    "sql": "sql SELECT --db b.duckdb",
    "import": "import bundle --db new.duckdb",
    "list": "list methods",
    "show": "show rslad",
}
"""A command that can be done, of each verb but the demo, which takes minutes."""
WRITTEN = ["b.duckdb", "b.duckdb.wal"]
"""What some of them add to."""

NASTY = st.sampled_from(
    [
        *("", " ", "-", "--", "-1", "0", "1", "1.5", "1e400", "1e9999999999", "-1e400", "nan", "inf", "0x10", "1_000"),
        *("8/0", "0/8", "8", "300/255", "8/255/1", "1/3/", "99999999999999999999", "None", "null", "true", "[]", "{}"),
        *(".", "..", "/", "~", "~nosuchuser", "~nosuchuser/x", "no/such/file", "/proc/self/mem", "/dev/null"),
        *("a" * 300, "a" * 3000, "x" * 255 + ".safetensors", "a/" * 2000, "\x00", "a\x00b", "\n", "a\nb"),
        *("\x1b[31mred", "\u202egnp.exe", "\ud800", "\udcff", "\u0661", "\uff11", "\u00e9", "\U0001f600"),
        *("'", '"', "'; DROP TABLE evaluation; --", "%s%n", "{0}", "$HOME", "`id`", "*", "?", "[a", "(", "\\"),
        *("natural@", "@Linf:", "fgsm@L2:", "fgsm@Linf:1/2:3", "a=b", "=", "==", "a.b.c=1", "objective=", "x[", "[y]"),
        *("natural+natural", "+", "natural+", "rslad+", "natural#", "natural#0", "natural#-1", "natural@0", "md:x"),
        *(
            "b.duckdb",
            "bundle",
            "at.safetensors",
            "study.toml",
            "images.npz",
            "hf:",
            "hf:x",
            "hub:a/b",
            "torchattacks:",
        ),
        *("wrn-34-1000000", "convnet-0", "convnet-999999999", "resnet-", "resnet-0", "file.py:", "study.toml:x", ":"),
    ]
) | st.text(max_size=20)


COSTLY = ("--epochs", "--eot", "--votes", "--workers")
"""Options of which a large number is no mistake, and takes its time."""


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """A sound command with one or two of its words replaced, or options added."""
    verb = draw(st.sampled_from(sorted(SOUND)))
    words = SOUND[verb].split()
    parameters = typer.main.get_command(app).commands[verb].params  # type: ignore[attr-defined]
    options = sorted(p.opts[-1] for p in parameters if p.param_type_name == "option" and not p.is_flag)
    for _ in range(draw(st.integers(1, 2))):
        if options and draw(st.booleans()):
            words += [draw(st.sampled_from(options)), draw(NASTY)]
        else:
            words[draw(st.integers(1, len(words) - 1))] = draw(NASTY)
    assume(not any(option in COSTLY and _large(value) for option, value in pairwise(words)))
    return words


def _large(value: str) -> bool:
    try:
        return int(value) > 3
    except ValueError:
        return False


@tries(150)
@given(words=commands())
def test_a_wrong_command_line_is_refused_in_a_line(words: list[str], sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        attempt(words, here, written=WRITTEN)
