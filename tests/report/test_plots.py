"""The figures: everything inside, nothing on top of anything else, the same bytes each time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from bench.errors import BadData, BenchError, DiskFull, UnknownName
from bench.report.boards import Board, Row, Score
from bench.report.plots import PLOTS, plot
from bench.report.plots.fairness import pareto
from bench.report.plots.labels import Box, place
from bench.report.plots.style import save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SCHEMA = Path(__file__).parents[2] / "bench" / "store" / "schema.sql"
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES = (
    *("natural", "pgd-at", "trades", "mart", "ard", "iad", "rslad", "adaad", "mtard", "absld", "adr", "fair_ard"),
    *("frl", "bat", "cfa", "wat", "dafa", "faal", "trades+adr", "trades+awp", "adr+awp", "rslad+adr", "pgd-at+awp"),
    "mart+dafa",
)


class Database:
    """Stands for bench.store.database.Store: SQL over the real schema, in memory."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(SCHEMA.read_text(encoding="utf-8"))

    def query(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        return self.connection.execute(sql, list(params)).df()


def database_of(methods: Sequence[str] = ("natural", "trades", "adr"), epochs: Sequence[str] = ()) -> Database:
    """Each method unattacked and under two attacks, on 60 samples of 3 classes; curves for those in `epochs`."""
    database = Database()
    run = database.connection.execute
    run("INSERT INTO datasets VALUES ('data', 'digits', 'test', 'n=60,seed=0', 60, ['0', '1', '2'])")
    for attack, norm, eps in (("clean", "none", "0"), ("fgsm", "Linf", "8/255"), ("autoattack", "Linf", "8/255")):
        run("INSERT INTO attacks VALUES (?, ?, ?, ?, 0.03, [], '{}')", [attack, attack, norm, eps])
    label = np.arange(60) % 3
    evaluations = itertools.count()
    for number, method in enumerate(methods):
        run(
            "INSERT INTO checkpoints VALUES (?, ?, '', 'p', 'convnet-6', 'digits', 0, NULL, ?, 3, 4, 'last', NULL,"
            " '{}', '{}', '{}')",
            [method, method, method],
        )
        for attack, hits in (("clean", 57), ("fgsm", 30 + number), ("autoattack", 25 + 3 * number)):
            evaluation = next(evaluations)
            run(
                "INSERT INTO evaluations VALUES (?, ?, ?, 'data', ?, 60)", [evaluation, str(evaluation), method, attack]
            )
            run("INSERT INTO chunks VALUES (?, 60, 0, 0, 0)", [evaluation])
            for sample in range(60):
                right = bool(sample < hits)
                predicted = int(label[sample]) if right else (int(label[sample]) + 1) % 3
                run(
                    "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, 0.5, ?, NULL, NULL, NULL)",
                    [evaluation, sample, int(label[sample]), predicted, right, 0 if right else 1],
                )
        if method in epochs:
            for epoch, split, label_ in itertools.product(range(1, 5), ("train", "valid"), range(3)):
                adv = None if method == "natural" and split == "train" else 2 * epoch + label_
                run("INSERT INTO epochs VALUES (?, ?, ?, ?, 20, ?, ?)", [method, epoch, split, label_, 4 * epoch, adv])
    return database


def score_of(accuracy: np.ndarray[tuple[int], np.dtype[np.float64]], seeds: int) -> Score:
    return Score(
        accuracy=float(accuracy.mean()),
        accuracy_std=0.006 if seeds > 1 else None,
        worst_accuracy=float(accuracy.min()),
        worst_class=str(accuracy.argmin()),
        worst_seeds=seeds,
        nsd=float(accuracy.std() / accuracy.mean()) if accuracy.any() else None,
        nsd_std=0.01 if seeds > 1 else None,
        class_accuracy=tuple(float(value) for value in accuracy),
    )


def board_of(methods: int, classes: Sequence[str], seeds: int = 1, attack: str = "autoattack") -> Board:
    rng = np.random.default_rng(methods)
    rows = []
    for number, name in enumerate(NAMES[:methods]):
        base = 0.01 if name == "natural" else rng.uniform(0.40, 0.55)
        accuracy = np.clip(base + rng.normal(0, base / 5, len(classes)), 0, 1)
        variant = "average.judged=true" if number % 5 == 0 else ""
        rows.append(
            Row(
                rank=number + 1,
                method=name,
                variant=variant,
                preset="paper",
                model="resnet-18",
                selection="last",
                recipe_id=str(number),
                checkpoints=("c",) * seeds,
                robust=score_of(accuracy, seeds),
                clean=score_of(np.clip(accuracy + 0.4, 0, 1), seeds),
            )
        )
    return Board(
        dataset="cifar10",
        split="test",
        subset="n=1000,seed=0",
        dataset_id="data",
        class_names=tuple(classes),
        samples=1000,
        attack=attack,
        attack_id="attack",
        norm="Linf",
        eps=8 / 255,
        eps_exact="8/255",
        rows=tuple(rows),
    )


def draw(name: str, board: Board) -> Figure:
    figure = styled(PLOTS[name])(Database(), board)
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> list[Text]:
    """Every text that is seen."""
    from matplotlib.text import Text

    found: list[Text] = []
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible():
            found.append(text)
    drawn = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
        if axes.axison and min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
    }
    hidden = ticks - drawn
    return [text for text in found if id(text) not in hidden and (text.axes is None or text.axes.get_visible())]


def box_of(text: Text) -> Box:
    extent = text.get_window_extent()
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)


SHAPES = {
    "few": board_of(3, CIFAR),
    "many": board_of(24, CIFAR, seeds=3),
    "hundred": board_of(9, [f"class_{number}_of_them" for number in range(100)]),
    "one": board_of(1, ("a", "b")),
    "clean": board_of(6, CIFAR, attack="clean"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["heatmap", "fairness", "bars"])
def test_nothing_is_cut_off_and_no_text_covers_another(name: str, shape: str) -> None:
    figure = draw(name, SHAPES[shape])
    whole = Box(0, 0, figure.bbox.width, figure.bbox.height)
    # The title is written over blank lines that the lines below it begin with.
    said = [text for text in texts(figure) if text is not figure._suptitle]  # type: ignore[attr-defined]
    boxes = [box_of(text) for text in said]
    for text, box in zip(said, boxes, strict=True):
        assert box.within(whole.grown(0.5)), text.get_text()
    for (one, box), (two, other) in itertools.combinations(zip(said, boxes, strict=True), 2):
        # Line boxes are taller than their letters: stacked lines may touch by a pixel or two.
        assert not box.grown(-1.5).meets(other.grown(-1.5)), (one.get_text(), two.get_text())


@pytest.mark.parametrize("shape", ["few", "many", "hundred"])
def test_names_of_points_stay_in_the_axes_and_off_the_points(shape: str) -> None:
    board = SHAPES[shape]
    figure = draw("fairness", board)
    (axes,) = figure.axes
    names = [box_of(text) for text in axes.texts]
    assert len(names) == sum(row.robust.accuracy >= board.chance for row in board.rows)
    bounds = axes.get_window_extent()
    frame = Box(bounds.x0, bounds.y0, bounds.x1, bounds.y1)
    assert all(name.within(frame) for name in names)
    for row in board.rows:
        if row.robust.accuracy >= board.chance:
            x, y = axes.transData.transform((row.robust.nsd or 0.0, 100 * row.robust.accuracy))
            assert not any(name.meets(Box(x - 3, y - 3, x + 3, y + 3)) for name in names)


def test_what_is_below_chance_is_said_in_words() -> None:
    figure = draw("fairness", SHAPES["few"])
    said = " ".join(text.get_text() for text in texts(figure))
    assert "not shown, below chance: natural[average.judged=true]" in said
    assert len(figure.axes[0].texts) == 2


def test_heat_map_has_figures_for_ten_classes_and_none_for_a_hundred() -> None:
    ten = draw("heatmap", SHAPES["few"]).axes[0]
    assert len(ten.texts) == 30
    hundred = draw("heatmap", SHAPES["hundred"]).axes[0]
    assert len(hundred.texts) == 0
    assert len(hundred.get_xticks()) <= 20


def test_heat_map_leaves_a_class_without_samples_blank() -> None:
    board = board_of(1, CIFAR)
    row = board.rows[0]
    vector = (None, *row.robust.class_accuracy[1:])
    holed = Score(**{**row.robust.__dict__, "class_accuracy": vector})
    figure = draw("heatmap", Board(**{**board.__dict__, "rows": (Row(**{**row.__dict__, "robust": holed}),)}))
    assert len(figure.axes[0].texts) == 9


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    board = board_of(3, ("$a_b$", "名前", "<&>"))
    for name in ("heatmap", "fairness", "bars"):
        figure = styled(PLOTS[name])(Database(), board)
        assert figure is not None
        save(figure, tmp_path / f"{name}.png")


# ---- Pareto front


def rows_of(marks: Sequence[tuple[float, float]]) -> list[Row]:
    row = board_of(1, ("a", "b")).rows[0]
    return [
        Row(**{**row.__dict__, "robust": Score(**{**row.robust.__dict__, "accuracy": accuracy, "nsd": nsd})})
        for accuracy, nsd in marks
    ]


def test_pareto_front_by_hand() -> None:
    assert pareto(rows_of([(0.7, 0.3), (0.6, 0.2), (0.6, 0.4), (0.8, 0.5), (0.7, 0.3)])) == [1, 0, 4, 3]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12))
def test_pareto_front_beats_all_that_is_not_on_it(marks: list[tuple[int, int]]) -> None:
    front = pareto(rows_of([(accuracy / 8, nsd / 8) for accuracy, nsd in marks]))
    for index, (accuracy, nsd) in enumerate(marks):
        beaten = any(a >= accuracy and n <= nsd and (a, n) != (accuracy, nsd) for a, n in marks)
        assert (index in front) == (not beaten)
    assert [marks[index][1] for index in front] == sorted(marks[index][1] for index in front)


# ---- labels

FRAME = Box(0, 0, 1000, 700)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(50, 950), st.floats(50, 650), st.floats(10, 180)),
        min_size=1,
        max_size=16,
    )
)
def test_labels_never_overlap_nor_leave_the_frame(spots: list[tuple[float, float, float]]) -> None:
    points = [(x, y) for x, y, _ in spots]
    sizes = [(width, 14.0) for _, _, width in spots]
    placed = place(points, sizes, FRAME)
    assert placed == place(points, sizes, FRAME)
    if placed is None:
        assert len(spots) > 4
        return
    for spot, size in zip(placed, sizes, strict=True):
        assert spot.box.within(FRAME)
        assert spot.box.right - spot.box.left == pytest.approx(size[0])
        assert not any(spot.box.meets(Box(x - 5, y - 5, x + 5, y + 5)) for x, y in points)
    for one, two in itertools.combinations(placed, 2):
        assert not one.box.meets(two.box)
        for leader, other in ((one.leader, two.box), (two.leader, one.box)):
            assert leader is None or not other.crossed_by(leader)


def test_a_cluster_of_points_finds_room() -> None:
    points = [(500 + 3 * math.cos(number), 350 + 3 * math.sin(number)) for number in range(12)]
    placed = place(points, [(90.0, 14.0)] * 12, FRAME)
    assert placed is not None
    assert sum(spot.leader is not None for spot in placed) >= 8


def test_no_room_is_said() -> None:
    assert place([(10, 10), (12, 10)], [(90.0, 14.0)] * 2, Box(0, 0, 100, 20)) is None


@pytest.mark.parametrize(
    ("segment", "crosses"),
    [
        (((-5, 5), (15, 5)), True),
        (((-5, 15), (15, 15)), False),
        (((2, 2), (8, 8)), True),
        (((-5, 0), (5, 30)), False),
        (((5, -5), (5, 15)), True),
        (((12, -5), (12, 15)), False),
    ],
)
def test_segments_cross_boxes(segment: tuple[tuple[float, float], tuple[float, float]], crosses: bool) -> None:
    assert Box(0, 0, 10, 10).crossed_by(segment) is crosses


# ---- curves


def test_methods_without_epochs_are_named() -> None:
    database = database_of(epochs=("trades", "natural"))
    from bench.report.boards import boards

    figure = styled(PLOTS["curves"])(database, boards(database)[0])
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["trades", "natural"]
    assert "no epochs stored for: adr" in " ".join(text.get_text() for text in texts(figure))
    trades, natural = figure.axes[:2]
    assert len(trades.lines) == 1 + 5
    assert len(natural.lines) == 1 + 4  # it never saw attacked training images
    curve = next(line for line in trades.lines if line.get_linestyle() == ":")
    # hits of the worst class: 2 * epoch of 20
    assert np.asarray(curve.get_ydata()).tolist() == pytest.approx([10, 20, 30, 40])


def test_no_epochs_no_curves(tmp_path: Path) -> None:
    database = database_of()
    assert [path.name.split("-")[0] for path in plot(database, tmp_path)] == ["heatmap", "fairness", "bars"]
    with pytest.raises(BadData, match="nothing to draw for 'curves'"):
        plot(database, tmp_path, ["curves"])


# ---- files


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_same_database_same_bytes(tmp_path: Path, suffix: str) -> None:
    database = database_of(epochs=("trades",))
    first = plot(database, tmp_path / "a", suffix=suffix)
    second = plot(database, tmp_path / "b", suffix=suffix)
    assert [path.name for path in first] == [f"{name}-digits-test-n-60-seed-0-linf-8-of-255{suffix}" for name in PLOTS]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
        if suffix == ".png":
            with Image.open(one) as image:
                assert image.size[0] > 600
                assert not {"Software", "Creation Time"} & set(image.info)


def test_style_of_the_process_stays_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 31.0, "axes.grid": False}):
        small = plot(database_of(), tmp_path, ["heatmap"])[0].read_bytes()
        assert mpl.rcParams["font.size"] == 31.0
    assert plot(database_of(), tmp_path, ["heatmap"])[0].read_bytes() == small


def test_unknown_names(tmp_path: Path) -> None:
    database = database_of()
    with pytest.raises(UnknownName, match="did you mean 'heatmap'"):
        plot(database, tmp_path, ["heatmp"])
    with pytest.raises(UnknownName, match=r"did you mean '\.png'"):
        plot(database, tmp_path, suffix=".pn")
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        plot(database, tmp_path, dataset="digit")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    occupied = tmp_path / "figures"
    occupied.write_text("", encoding="utf-8")
    with pytest.raises(BenchError, match="cannot write heatmap-digits"):
        plot(database_of(), occupied, ["heatmap"])


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(figure: Figure, path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(DiskFull, match=r"no space left to write .*heatmap-digits"):
        plot(database_of(), tmp_path, ["heatmap"])
