"""Verbs that train: train, select."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.console import Steps, Stopped, progress, results_alone, stderr, stdout
from bench.cli.options import AsJson, Dataset, Device, device_of
from bench.cli.reading import show
from bench.cli.signals import stoppable
from bench.errors import BadRecipe
from bench.files import check_writable, cut_name


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (train, select):
        app.command()(verb)


def train(
    method: Annotated[str, typer.Argument(help="A method, or parts joined by '+', such as trades+awp.")],
    dataset: Dataset,
    model: Annotated[str, typer.Option(help="Network to train ('evenbench list models').")],
    preset: Annotated[
        str | None, typer.Option(help="paper, short or digits; the data set's default when not named.")
    ] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="Teacher's checkpoint, or FILE@MODEL; ROLE=... where there are several.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the preset's.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius to train for, instead of the preset's.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights and every random choice.")
    ] = 0,
    n: Annotated[int, typer.Option(help="Train on a stratified subset of so many images; 0 for all.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SLOT.FIELD=VALUE", help="Override a field.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Checkpoint to write.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, instead of the preset's.")] = None,
) -> None:
    """Train a method and keep the selected epoch's checkpoint; run it again to go on after an interruption.

    Example: evenbench train pgd-at --dataset digits --model convnet-6 --out at.safetensors
    """
    from bench.budget import parse_eps
    from bench.data.load import check_test_split
    from bench.data.source import Source
    from bench.evaluation.network import teacher_of
    from bench.models.architecture import check_name
    from bench.training.fit import Interrupted, fit
    from bench.training.method import compose, lineage
    from bench.training.run import prepare

    check_name(model)
    if out is not None:
        check_writable(out)
    lineage(method)  # wrong names are refused before the data are loaded
    settings: dict[str, Any] = {}
    radius = None if eps is None else str(parse_eps(eps))
    for key, value in (("epochs", epochs), ("eps", radius), ("precision", precision)):
        if value is not None:
            settings[f"schedule.{key}"] = value
    for item in set_ or []:
        address, equals, value = item.partition("=")
        if not equals:
            raise BadRecipe(f"--set {item!r} is no assignment; write slot.field=value")
        settings[address.strip()] = value.strip()
    images = Source(dataset, "train", n=n).images()
    images.check_complete()
    check_test_split(images, dataset)
    plan = compose(method, dataset=images.name, preset=preset, settings=settings)
    parents = {}
    for item in teacher or []:
        role, equals, file = item.rpartition("=")
        parents[role if equals else (plan.teachers or ("teacher",))[0]] = teacher_of(file, images)
    prepared = prepare(plan, images, model, seed, parents)
    stem = cut_name(f"{method}-{images.name}-{model}")
    path = out or Path("results/checkpoints") / f"{stem}-s{seed}-{prepared.run_id[:8]}.safetensors"
    check_writable(path)
    with results_alone(), progress() as shown, stoppable() as stop:
        steps = Steps()

        def report(done: int, total: int) -> None:
            epoch = (done - 1) * plan.schedule.epochs // total + 1
            shown.show(done / total, steps.left(done, total), f"{method} on {images.name}: epoch {epoch}")

        def waits() -> None:
            shown.say(f"another process trains {path}; waiting to go on from there")

        try:
            checkpoint = fit(prepared, path, device=device_of(device), stop=stop, report=report, waits=waits)
        except Interrupted as stopped:
            raise Stopped(str(stopped)) from None
    stderr().print(
        f"checkpoint {checkpoint.checkpoint_id}, epoch {checkpoint.epoch} of {plan.schedule.epochs}", markup=False
    )
    sys.stdout.write(f"{path}\n")


def select(
    ckpt: Annotated[Path, typer.Argument(help="Checkpoint that a training wrote, with its folder of epochs.")],
    rule: Annotated[str, typer.Option(help="last, best-robust, best-robust-plus-worst or best-mean-clean-robust.")],
    out: Annotated[Path | None, typer.Option(help="Checkpoint to write; CKPT-RULE.safetensors when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a selection rule to a finished training: the checkpoint it would have kept, without training again.

    Example: evenbench select at.safetensors --rule best-robust-plus-worst
    """
    from bench.training.checkpoint import read_trained
    from bench.training.reselect import figures, reselect, write_new

    if out is not None:
        check_writable(out)
    before = read_trained(ckpt)
    chosen = reselect(before, ckpt, rule)
    rules = dict.fromkeys((rule, before.run["schedule"]["selection"]))
    file = out or (ckpt.with_name(f"{ckpt.stem}-{rule}.safetensors") if len(rules) > 1 else ckpt)
    write_new(chosen, file)
    kept = [figures(before.history, each) for each in rules]
    if as_json:
        facts = {"file": str(file), "checkpoint_id": chosen.checkpoint_id, "chosen": kept[0], "kept": kept[-1]}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    rows = [
        (
            *(row["rule"], str(row["epoch"]), f"{100 * row['clean']:.2f}", f"{100 * row['robust']:.2f}"),
            f"{100 * row['worst']:.2f} ({row['worst_class']})",
        )
        for row in kept
    ]
    header = ("rule", "epoch", "clean %", "robust %", "worst class %")
    show(f"{ckpt} on {kept[0]['n']} held-out images", header, rows)
    line = f"epoch {chosen.epoch} is in {file}; 'evenbench evaluate {file} --dataset ...' attacks it"
    stdout().print(line, markup=False, soft_wrap=True)
