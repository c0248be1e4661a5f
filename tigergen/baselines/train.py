"""Train any generator of the comparison by its name, and open it again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kb.errors import UserError
from tigergen.baselines import dit, imagen, latent, pggan_train
from tigergen.baselines.work import Drawer, Work, finished

TRAINERS: dict[str, tuple[Callable[[Work], dict[str, Any]], Callable[[Path], Drawer]]] = {
    "pg-gan": (pggan_train.train_pg_gan, pggan_train.open_pg_gan),
    "dit": (dit.train_dit, dit.open_dit),
    "imagen": (imagen.train_imagen, imagen.open_imagen),
    "sd": (latent.train_sd, latent.open_tiger),
    "sd-s": (latent.train_sd_s, latent.open_sd_s),
    "sd-c": (latent.train_sd_c, latent.open_sd_c),
    "tiger": (latent.train_tiger, latent.open_tiger),
}


def train_generator(model: str, work: Work) -> dict[str, Any]:
    """Train a generator, go on with a killed training, or return the record of one that is done.

    Returns: steps, seconds, parameters that were trained, seed, labels, trained_on (ids of the training images).
    Raises:
        UserError: the folder holds one of other data; a preset that does not start from random weights in the fixed
            latent space.
    """
    done = finished(work.folder)
    if done is not None and done["data"] != work.cases.digest():
        raise UserError(f"{work.folder} holds a generator of other training images or prompts; name another folder.")
    if done is not None:
        return done
    if work.preset["base"] or work.preset["model"]["autoencoder"] != "unshuffle":
        raise UserError(
            "the comparison trains every generator from random weights on the same latents; give a preset without base "
            "model and with model.autoencoder = unshuffle, such as tiny."
        )
    return TRAINERS[model][0](work)


def open_generator(model: str, folder: Path) -> Drawer:
    """A trained generator, ready to draw."""
    return TRAINERS[model][1](folder)
