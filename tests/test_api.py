"""The one import of a method's, an attack's or a plug-in's test file."""

from __future__ import annotations

import re

import bench.api


def test_every_name_is_there_and_is_explained():
    explained = {*re.findall(r"`(\w+)`", bench.api.__doc__)}
    for name in bench.api.__all__:
        assert hasattr(bench.api, name)
    assert {*bench.api.__all__} <= explained
