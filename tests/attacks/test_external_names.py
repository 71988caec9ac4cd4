from __future__ import annotations

from fractions import Fraction

import pytest

from bench.attacks.external import TorchAttacks
from bench.attacks.external_names import parse
from bench.attacks.trial import plan
from bench.errors import BadOption, UnknownName


def test_a_text_names_library_attack_and_literal_arguments():
    assert parse("torchattacks:PGD") == TorchAttacks("PGD")
    text = "torchattacks:PGD( steps = 50,alpha=2/255, random_start=False)"
    assert parse(text) == TorchAttacks("PGD", (("alpha", 2 / 255), ("random_start", False), ("steps", 50)))
    assert parse("foolbox:X(a=[1, (2, 'b')], c=None, d=-1e-3)").arguments == (
        ("a", (1, (2, "b"))),
        ("c", None),
        ("d", -1e-3),
    )
    assert str(parse("foolbox:X(b=(1, 2), a='x')")) == "foolbox:X(a='x',b=(1,2))"


@pytest.mark.parametrize(
    "call",
    [
        "PGD(steps=",
        "PGD(steps)",
        "PGD(10)",
        "PGD(steps=len('abc'))",
        "PGD(steps=__import__('os').getpid())",
        "PGD(steps=2**9)",
        "PGD(**{'steps': 1})",
        "PGD(steps={1: 2})",
        "PGD(steps=b'x')",
        "PGD(steps=1/0)",
        "PGD(steps='a'/2)",
        "PGD.real(steps=1)",
        "PGD()()",
        "PGD; import os",
        "",
    ],
)
def test_anything_else_is_refused_in_one_line_and_not_executed(call):
    with pytest.raises(BadOption, match=r"cannot be read; write torchattacks:Name") as refused:
        parse(f"torchattacks:{call}")
    assert "\n" not in str(refused.value)


def test_an_unknown_library_is_told_with_the_nearest():
    with pytest.raises(UnknownName, match="no library of attacks is called 'torchattack'; did you mean 'torchattacks'"):
        plan(["torchattack:PGD"], eps=Fraction(1, 10), batch_size=8)
