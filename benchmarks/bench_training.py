"""Steps a second and peak memory of fine training, beside two ControlNets trained as diffusers' example trains one.

Usage: python benchmarks/bench_training.py [--shape tiny|sd …] [--threads N] [--rounds N] [--steps N] [--compile]

Shapes: `tiny` is the preset; `sd` has the blocks and heads of Stable Diffusion 1.5 with a quarter of its channels, in
U-Net, autoencoder, text encoder and ControlNet hint alike, and images of 256 px: 16 of them are as many latent
positions as 4 of 512 px, the script's batch (at 512 px attention, to which a quarter of the channels helps least, would
outweigh the rest). Weights are random. Sides, each in a fresh process, fp32, of one batch size, with fused AdamW:

  ours          the loop of `tigergen train fine`, U-Net frozen; averaging of the weights, draws and fusion included
  decoder       the same with the U-Net's decoder learning along, the default of the small presets
  compiled      "ours" with training.compile (with --compile)
  script        the step of diffusers' examples/controlnet/train_controlnet.py (read at 58eb52c) on a
                MultiControlNetModel of two: encode images and prompts, both ControlNets, frozen U-Net, error, backward
                pass, clipping, AdamW; ready tensors instead of its data loader
  cached        "script" with latents and text states from a cache, so that one sees where the gain comes from

The sides take turns; a speed is the median over the rounds of the ratio to "script" of that round. With one thread,
time is that of the processor: neighbours change the clock more than the work.
Memory: VmHWM of each process after the last step (imports, models and the making of the caches included), and what of
it is above that of a process that has only imported. FLOPs: torch's counter over the first step, convolutions, matrix
products and attention only; the machine's peak: matrix product of 1,536 × 1,536 in fp32 with the same threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from inputs import clock, high_water

SIDES = {"tiny": ("script", "cached", "ours", "decoder"), "sd": ("script", "cached", "ours")}
BATCH = {"tiny": 8, "sd": 16}
SIZE = {"tiny": 64, "sd": 256}
MUST = {"speed": 1.3, "memory": 0.8}
ROUNDS = {"tiny": (5, 10), "sd": (2, 1)}
WARM = {"tiny": 2, "sd": 1}
IMAGES = 16


def preset(shape: str, side: str, threads: int) -> dict[str, Any]:
    """The tiny preset; for `sd` only its training settings count, the networks are those of `networks`."""
    from tigergen.training import presets

    changed = [
        f"training.threads={threads}",
        f"training.batch={BATCH[shape]}",
        "training.checkpoint_every=1000000",
        "training.held_out_every=0",
        "training.grid_every=0",
        f"fine.unfreeze={'decoder' if side == 'decoder' else 'none'}",
    ]
    if side == "compiled":
        changed.append("training.compile=true")
    return presets.load("tiny", changed)


def networks(shape: str, settings: dict[str, Any], cases: Any) -> Any:
    """A TigerPipeline without encoders."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tigergen.model import TigerPipeline, build
    from tigergen.model.tokens import phrase_tokenizer, split_phrases

    phrases = sorted({phrase for prompt in (*cases.fg, *cases.bg) for phrase in split_phrases(prompt)})
    if shape == "tiny":
        return build(settings, phrases, images=cases.images)
    torch.manual_seed(0)
    tokenizer = phrase_tokenizer(phrases, 77)
    return TigerPipeline(
        unet=UNet2DConditionModel(
            sample_size=32, in_channels=4, out_channels=4, block_out_channels=(80, 160, 320, 320), layers_per_block=2,
            cross_attention_dim=192, attention_head_dim=8, norm_num_groups=16,
        ),
        vae=AutoencoderKL(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64, 128, 128),
            layers_per_block=2, norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=12,
                           num_attention_heads=12, max_position_embeddings=77, pad_token_id=tokenizer.pad_token_id,
                           bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
        ).eval(),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        image_size=SIZE[shape],
    )  # fmt: skip


def made_up_cases(size: int) -> Any:
    """Noise with a round nodule and prompts of five to eight phrases; what is in the images costs nothing."""
    import numpy as np

    from tigergen.data import Cases

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    masks = np.stack([(((x - 0.5) ** 2 + (y - 0.4) ** 2) < r**2) for r in rng.uniform(0.1, 0.3, IMAGES)])
    labels = ["benign", "PTC"] * (IMAGES // 2)
    words = ["solid", "hypoechoic", "irregular margin", "taller than wide", "punctate echogenic foci", "no halo"]
    return Cases(
        images=rng.integers(0, 256, (IMAGES, size, size), dtype=np.uint8),
        masks=masks.astype(np.uint8),
        sobel=rng.integers(0, 256, (IMAGES, size, size), dtype=np.uint8),
        fg=[", ".join([label, *words[: 2 + k % 5]]) for k, label in enumerate(labels)],
        bg=["transverse plane, right side, clear definition"] * IMAGES,
        labels=labels,
        attributes=[{}] * IMAGES,
        image_ids=[str(k) for k in range(IMAGES)],
        patient_ids=[str(k) for k in range(IMAGES)],
    )


def ours(shape: str, side: str, threads: int) -> Callable[[int, Callable[[int], None]], None]:
    """Our fine stage as a function that takes so many steps and calls back after each."""
    from tigergen.model import add_control
    from tigergen.model.tokens import split_phrases
    from tigergen.training.loop import train
    from tigergen.training.tasks import fine_task

    settings = preset(shape, side, threads)
    cases = made_up_cases(SIZE[shape])
    roles = [[(phrase, ("particular", "joint", "common")[k % 3]) for k, phrase in enumerate(split_phrases(prompt))]
             for prompt in cases.fg]  # fmt: skip
    pipe = add_control(networks(shape, settings, cases))
    task = fine_task(pipe, cases, settings, None, roles, None)

    def steps(count: int, after: Callable[[int], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(task, settings["training"], count, Path(folder), False, lambda event: after(event["step"]))

    return steps


def script(shape: str, side: str, threads: int) -> Callable[[int, Callable[[int], None]], None]:
    """The loop of train_controlnet.py on two ControlNets whose residuals are summed."""
    import torch
    from accelerate import Accelerator
    from diffusers import ControlNetModel, DDPMScheduler
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
    from diffusers.optimization import get_scheduler
    from torch.nn import functional as F

    from tigergen.model.codec import images_to_latents
    from tigergen.model.pipeline import to_conditions, to_pixels
    from tigergen.model.tokens import encode, join_prompts

    settings = preset(shape, side, threads)
    cases = made_up_cases(SIZE[shape])
    torch.set_num_threads(threads)
    pipe = networks(shape, settings, cases)
    unet, vae, text_encoder, batch = pipe.unet, pipe.vae, pipe.text_encoder, BATCH[shape]
    hint = (16, 32, 96) if shape == "tiny" else (4, 8, 24, 64)
    nets = [ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=hint) for _ in range(2)]
    controls = MultiControlNetModel(nets)
    for part in (vae, unet, text_encoder):
        part.requires_grad_(False)
    controls.train()
    accelerator = Accelerator(mixed_precision="no")
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    optimizer = torch.optim.AdamW(controls.parameters(), lr=1e-5, weight_decay=1e-2, fused=True)
    rates = get_scheduler("constant", optimizer=optimizer)
    controls, optimizer, rates = accelerator.prepare(controls, optimizer, rates)
    pixels = to_pixels(cases.images)
    pixels = pixels.expand(-1, int(vae.config["in_channels"]), -1, -1)
    conditions = [image.expand(-1, 3, -1, -1) for image in to_conditions(cases.masks, cases.sobel)]
    ids = encode(pipe.tokenizer, [join_prompts(*both) for both in zip(cases.fg, cases.bg, strict=True)]).ids
    if side == "cached":
        with torch.no_grad():
            known_latents = torch.cat([images_to_latents(vae, image) for image in to_pixels(cases.images).split(1)])
            known_states = text_encoder(ids, return_dict=False)[0]

    def step(rows: list[int]) -> float:
        if side == "cached":
            latents, states = known_latents[rows], known_states[rows]
        else:
            latents = vae.encode(pixels[rows]).latent_dist.sample() * vae.config.scaling_factor
            states = text_encoder(ids[rows], return_dict=False)[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (batch,)).long()
        noisy = noise_scheduler.add_noise(latents.float(), noise.float(), timesteps)
        down, mid = controls(
            noisy,
            timesteps,
            encoder_hidden_states=states,
            controlnet_cond=[image[rows] for image in conditions],
            conditioning_scale=[1.0, 1.0],
            return_dict=False,
        )
        predicted = unet(
            noisy,
            timesteps,
            encoder_hidden_states=states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        v = noise_scheduler.config.prediction_type == "v_prediction"
        target = noise_scheduler.get_velocity(latents, noise, timesteps) if v else noise
        loss = F.mse_loss(predicted.float(), target.float(), reduction="mean")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(controls.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach().item())

    def steps(count: int, after: Callable[[int], None]) -> None:
        for number in range(count):
            step([(number * batch + k) % IMAGES for k in range(batch)])
            after(number + 1)

    return steps


def child(shape: str, side: str, threads: int, rounds: int, per_round: int) -> None:
    """One side: warms up, then takes `per_round` steps whenever a line comes, and says how long they took."""

    def tell(**fact: Any) -> None:
        sys.stdout.write(json.dumps(fact) + "\n")
        sys.stdout.flush()

    import diffusers.models.controlnets.multicontrolnet  # noqa: F401  (both sides start from the same imports)
    import torch

    from tigergen.training.estimate import flop_counter

    imported = high_water() / 2**20
    began = clock(threads)
    steps = (script if side in ("script", "cached") else ours)(shape, side, threads)
    started, warm = 0.0, WARM[shape]
    counter = None if side == "compiled" else flop_counter()

    def after(done: int) -> None:
        nonlocal started
        if done == 1 and counter is not None:
            counter.__exit__(None, None, None)
        if done < warm or (done - warm) % per_round:
            return
        if done == warm:
            tell(imported=imported, ready=clock(threads) - began)
        else:
            tell(seconds=(clock(threads) - started) / per_round)
        sys.stdin.readline()
        started = clock(threads)

    if counter is not None:
        counter.__enter__()
    steps(warm + rounds * per_round, after)
    flops = counter.get_total_flops() if counter is not None else 0
    most = high_water() / 2**20
    from sampling_share import peak  # now, because its imports take memory

    torch.set_num_threads(threads)
    tell(peak=most, matmul=peak() / 1e9, flops=int(flops))


class Side:
    """A child process and what it said."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.name = name
        self.rounds: list[float] = []
        command = [sys.executable, __file__, "--child", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.start = self.hear()

    def hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"side {self.name} failed")
        fact: dict[str, float] = json.loads(line)
        return fact

    def go(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()


def compare(shape: str, sides: tuple[str, ...], threads: int, rounds: int, per_round: int) -> None:
    """Run the sides of a shape in turns and print a line each."""
    running: list[Side] = []
    try:
        for name in sides:
            running.append(Side(name, shape, name, threads, rounds, per_round))
        for number in range(rounds):
            # Every other round goes backwards: a drift of the machine then favours no side.
            for side in running if number % 2 == 0 else reversed(running):
                side.rounds.append(side.go()["seconds"])
        ends = {side.name: side.go() for side in running}
    finally:
        for side in running:
            side.process.kill()
            side.process.wait()
    for line in report(shape, running, ends):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(shape: str, running: list[Side], ends: dict[str, dict[str, float]]) -> Iterator[str]:
    """The table of a shape."""
    peak = median(end["matmul"] for end in ends.values())
    flops = {name: end["flops"] for name, end in ends.items()}
    flops["compiled"] = flops.get("ours", 0.0)
    base = running[0]
    yield f"{shape}: batch {BATCH[shape]}, matrix product {peak:.0f} GFLOP/s"
    yield "side      s/step (least to most)    images/s  speed   GFLOP/step  share  peak MB  ratio  above import  ready"
    for side in running:
        seconds, end = median(side.rounds), ends[side.name]
        # Turn by turn: what slows one round slows both sides of it.
        speed = median(b / s for b, s in zip(base.rounds, side.rounds, strict=True))
        work = flops[side.name] / 1e9
        above = (end["peak"] - side.start["imported"]) / (ends[base.name]["peak"] - base.start["imported"])
        yield (
            f"{side.name:9} {seconds:7.3f} ({min(side.rounds):.3f} to {max(side.rounds):.3f})"
            f" {BATCH[shape] / seconds:9.2f} {speed:6.2f} {work:12.1f} {work / seconds / peak:6.0%} {end['peak']:8.0f}"
            f" {end['peak'] / ends[base.name]['peak']:6.2f} {above:14.2f} {side.start['ready']:8.1f}"
        )
    yield f"must: speed of ours ≥ {MUST['speed']}, memory ≤ {MUST['memory']} of script"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=tuple(BATCH), default=list(BATCH))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, help="steps a round")
    parser.add_argument("--sides", nargs="+", help="all by default, without the decoder for sd")
    parser.add_argument("--compile", action="store_true", help="a side with training.compile as well")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        shape, side, *numbers = a.child
        child(shape, side, *map(int, numbers))
        return
    for shape in a.shape:
        sides = (*(a.sides or SIDES[shape]), *(["compiled"] if a.compile else []))
        rounds, steps = ROUNDS[shape]
        compare(shape, sides, a.threads, a.rounds or rounds, a.steps or steps)


if __name__ == "__main__":
    main()
