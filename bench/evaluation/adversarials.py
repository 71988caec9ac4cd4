"""Keep the adversarial images that attacks find, as perturbations. One safetensors file per chunk and attack.

    FOLDER/<checkpoint>/<attack>-<fingerprint>/<first sample>.safetensors

The chunk is the unit that is done or not done, and its file is written before its outcomes are stored. So a kill costs
the chunk in flight at most, whatever is stored has its images, and nothing has to be merged; a chunk that is done again
writes the same file again. `bench.evaluation.evidence` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from bench.attacks.trial import Trial
from bench.budget import show_eps
from bench.data.images import Images
from bench.errors import BadData
from bench.files import name_for, whole
from bench.fingerprint import canonical

FORMAT = 1
RECORD = "evenbench-adversarials"
"""The metadata entry that says what a file holds."""


@dataclass(frozen=True)
class Keeper:
    """Writes the adversarial images of one network, as `bench.evaluation.judge.Keep`.

    Attributes:
        folder: where.
        checkpoint_id: of the network.
        dataset: name of the data.
        split: of them.
        dataset_id: identity of the samples.
    """

    folder: Path
    checkpoint_id: str
    dataset: str
    split: str
    dataset_id: str

    @classmethod
    def of(cls, folder: Path, images: Images, checkpoint_id: str) -> Keeper:
        """The keeper of a network that is attacked on some images."""
        return cls(folder, checkpoint_id, images.name, images.split, images.dataset_id)

    def __call__(self, trial: Trial, sample: npt.NDArray[np.uint32], delta: Tensor) -> None:
        """Write a chunk, complete or not at all.

        Args:
            trial: what found them.
            sample: (B,) row of each image in its split.
            delta: (B,C,H,W) float32, what was added to the clean images; on the CPU.

        Raises:
            DiskFull: no space is left.
            BadData: the place cannot be written.
        """
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "split": self.split,
            "dataset_id": self.dataset_id,
            "checkpoint_id": self.checkpoint_id,
            "attack": trial.name,
            "attack_id": trial.attack_id,
            "spec": trial.spec,
            "norm": trial.norm,
            "eps": show_eps(trial.eps),
        }
        tensors = {"delta": delta.contiguous(), "sample": torch.from_numpy(sample.astype(np.int64))}
        path = self.place(trial) / f"{int(sample.min()):08d}.safetensors"
        try:
            with whole(path) as beside:
                safetensors.torch.save_file(tensors, beside, {RECORD: canonical(about)})
        except (OSError, SafetensorError) as problem:
            raise BadData(f"{path} cannot be written ({problem}); choose another --keep-adversarials") from None

    def place(self, trial: Trial) -> Path:
        """The folder of an attack's files."""
        return self.folder / self.checkpoint_id / f"{name_for(trial.name).strip('-')}-{trial.attack_id}"
