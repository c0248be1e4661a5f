"""A full-size Stable Diffusion folder on this machine, beside plain diffusers: one step a stage, two sampling steps.

The folder has structure, settings and key names of Stable Diffusion 1.5 (or 2.1) and random weights. Every row is a
process of its own: seconds of loading and of the work, and its peak memory (VmHWM). Plain diffusers is its own
StableDiffusionControlNetPipeline with two ControlNets, and a LoRA step on the U-Net as its training example takes it;
`--rows plain-fine` adds two ControlNets trained as its ControlNet example does. 512 px, one image, float32 by default.
What a dry run says of our two steps is printed beside what they took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from inputs import high_water

LIMIT_GB = 24.0
ROWS = ("coarse", "plain-coarse", "fine", "sample", "plain-sample")
STEPS, GUIDANCE = 2, 7.5
PROMPT = ("solid, irregular margin", "transverse plane, left side")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The preset, with one image a step and, for a narrow copy, its widths."""
    from tigergen.training import presets

    name, width = {"1.5": ("sd15", 768), "2.1": ("sd21", 1024)}[options.kind]
    changes = ["training.batch=1", "training.accumulation=1", "training.held_out_every=0", "training.grid_every=0",
               f"training.precision={options.precision}", f"training.threads={options.threads}",
               f"model.image_size={options.size}"]  # fmt: skip
    if options.divide > 1:
        widths = [w // options.divide for w in (320, 640, 1280, 1280)]
        changes += [f"model.unet_channels={widths}", f"model.text_width={width // options.divide}"]
    return presets.load(name, changes)


def one_case(size: int) -> Any:
    """A grey image with a round nodule."""
    import numpy as np

    from tigergen.data import Cases

    y, x = np.mgrid[:size, :size]
    mask = ((y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 5) ** 2).astype(np.uint8)[None]
    image = np.random.default_rng(0).integers(40, 120, (1, size, size), dtype=np.uint8)
    return Cases(image, mask, image * (1 - mask), [PROMPT[0]], [PROMPT[1]], ["FTC"], [{}], ["image"], ["patient"])


def trained(task: Any, preset: dict[str, Any]) -> float:
    """Seconds of one step of the loop."""
    from tigergen.training.loop import train

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        train(task, preset["training"], 1, Path(folder))
        return time.perf_counter() - begin


def coarse(options: argparse.Namespace, ready: Any) -> float:
    """One coarse step with adapters."""
    from tigergen.model import from_base
    from tigergen.training.stages import prepare_coarse
    from tigergen.training.tasks import coarse_task

    preset = settings(options)
    pipe = from_base(options.folder, options.size)
    prepare_coarse(pipe, preset)
    ready()
    return trained(coarse_task(pipe, one_case(options.size), preset, None), preset)


def fine(options: argparse.Namespace, ready: Any) -> float:
    """One fine step: two encoders and the fusion on the frozen U-Net."""
    from tigergen.model import add_control, from_base
    from tigergen.training.tasks import fine_task

    preset = settings(options)
    pipe = add_control(from_base(options.folder, options.size))
    ready()
    return trained(fine_task(pipe, one_case(options.size), preset, None, [[("solid", "joint")]], None), preset)


def sample(options: argparse.Namespace, ready: Any) -> float:
    """Two steps of DDIM with both encoders and guidance, decoding included."""
    from tigergen.model import add_control, from_base

    pipe, case = add_control(from_base(options.folder, options.size)), one_case(options.size)
    ready()
    begin = time.perf_counter()
    images = pipe(case.fg, case.bg, case.masks, case.sobel, steps=STEPS, guidance=GUIDANCE, sampler="ddim")
    assert images.shape == (1, options.size, options.size)
    return time.perf_counter() - begin


def plain_parts(folder: Path) -> dict[str, Any]:
    """The parts as diffusers and transformers load them."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    how = {"variant": "fp16", "torch_dtype": torch.float32, "use_safetensors": True}
    return {
        "vae": AutoencoderKL.from_pretrained(folder / "vae", **how),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", **how),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet", **how),
        "scheduler": DDIMScheduler.from_pretrained(folder / "scheduler"),
    }


def plain_batch(parts: dict[str, Any], size: int) -> tuple[Any, ...]:
    """Noisy latents, timesteps, text states and target of one image, as the training examples make them every step."""
    import torch

    with torch.no_grad():
        latents = parts["vae"].encode(torch.zeros(1, 3, size, size)).latent_dist.sample()
        latents = latents * parts["vae"].config.scaling_factor
        text = parts["tokenizer"](", ".join(PROMPT), padding="max_length", return_tensors="pt")
        states = parts["text_encoder"](text.input_ids)[0]
    noise, times = torch.randn_like(latents), torch.tensor([500])
    noisy = parts["scheduler"].add_noise(latents, noise, times)
    is_v = parts["scheduler"].config.prediction_type == "v_prediction"
    return noisy, times, states, parts["scheduler"].get_velocity(latents, noise, times) if is_v else noise


def plain_step(
    options: argparse.Namespace, parts: dict[str, Any], learning: list[Any], lr: float, said: Any, ready: Any
) -> float:
    """Seconds of one step of the training examples: batch, prediction `said`, backward pass, clipping, AdamW."""
    import torch

    optimiser = torch.optim.AdamW(learning, lr=lr, weight_decay=1e-2)
    ready()
    begin = time.perf_counter()
    *given, target = plain_batch(parts, options.size)
    with autocast(options):
        loss = torch.nn.functional.mse_loss(said(*given).float(), target)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learning, 1.0)
    optimiser.step()
    return time.perf_counter() - begin


def plain_coarse(options: argparse.Namespace, ready: Any) -> float:
    """One LoRA step on the U-Net."""
    from peft import LoraConfig

    parts = plain_parts(options.folder)
    unet = parts["unet"]
    for name in ("vae", "text_encoder", "unet"):
        parts[name].requires_grad_(False)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=targets))
    unet.enable_gradient_checkpointing()
    unet.train()
    learning = [p for p in unet.parameters() if p.requires_grad]

    def said(noisy: Any, times: Any, states: Any) -> Any:
        return unet(noisy, times, states, return_dict=False)[0]

    return plain_step(options, parts, learning, 1e-4, said, ready)


def plain_fine(options: argparse.Namespace, ready: Any) -> float:
    """One step of two ControlNets whose outputs are added, through the frozen U-Net."""
    import torch
    from diffusers import ControlNetModel

    parts = plain_parts(options.folder)
    unet = parts["unet"]
    nets = [ControlNetModel.from_unet(unet) for _ in range(2)]
    for name in ("vae", "text_encoder", "unet"):
        parts[name].requires_grad_(False)
    for net in (unet, *nets):
        net.enable_gradient_checkpointing()
        net.train()
    learning = [p for net in nets for p in net.parameters()]
    condition = torch.rand(1, 3, options.size, options.size)

    def said(noisy: Any, times: Any, states: Any) -> Any:
        both = [net(noisy, times, states, controlnet_cond=condition, return_dict=False) for net in nets]
        down = [first + second for first, second in zip(both[0][0], both[1][0], strict=True)]
        return unet(noisy, times, states, down_block_additional_residuals=down,
                    mid_block_additional_residual=both[0][1] + both[1][1], return_dict=False)[0]  # fmt: skip

    return plain_step(options, parts, learning, 1e-5, said, ready)


def plain_sample(options: argparse.Namespace, ready: Any) -> float:
    """Two steps of diffusers' own pipeline with two ControlNets and guidance, decoding included."""
    import torch
    from diffusers import ControlNetModel, MultiControlNetModel, StableDiffusionControlNetPipeline

    parts = plain_parts(options.folder)
    nets = MultiControlNetModel([ControlNetModel.from_unet(parts["unet"]) for _ in range(2)])
    pipe = StableDiffusionControlNetPipeline(
        **parts, controlnet=nets, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    ready()
    begin = time.perf_counter()
    pipe(
        ", ".join(PROMPT), image=[torch.rand(1, 3, options.size, options.size) for _ in range(2)],
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=options.size, width=options.size, output_type="np",
    )  # fmt: skip
    return time.perf_counter() - begin


def autocast(options: argparse.Namespace) -> Any:
    """What our loop computes its losses in."""
    import torch

    from tigergen.training.loop import autocast as ours

    return ours(torch.device("cpu"), options.precision)


def foretold(options: argparse.Namespace, stage: str) -> dict[str, Any]:
    """What a dry run says of a stage."""
    from tigergen.training.estimate import SHARE_OF_MATMUL, estimate

    phrases = [phrase for part in PROMPT for phrase in part.split(", ")]
    found = estimate(stage, settings(options), phrases, 1, options.folder, 0.0)
    return {**found, "share_of_matmul": SHARE_OF_MATMUL}


def child(options: argparse.Namespace) -> None:
    """Do one row and print it as JSON."""
    import torch

    torch.set_num_threads(options.threads)
    if options.row == "write":
        from sd_folder import write

        write(options.folder, options.kind, options.divide, fp16=True)
        result: dict[str, Any] = {}
    elif options.row.startswith("dry-"):
        result = foretold(options, options.row.removeprefix("dry-"))
    else:
        begin, loaded = time.perf_counter(), [0.0]
        work = {"coarse": coarse, "fine": fine, "sample": sample, "plain-coarse": plain_coarse,
                "plain-fine": plain_fine, "plain-sample": plain_sample}[options.row]  # fmt: skip
        seconds = work(options, lambda: loaded.__setitem__(0, time.perf_counter() - begin))
        result = {"load_s": loaded[0], "work_s": seconds}
    sys.stdout.write("\n" + json.dumps({**result, "peak_gb": high_water() / 1e9}) + "\n")


def run(row: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row in a process of its own."""
    given = [f"--{name}={getattr(options, name)}" for name in ("kind", "divide", "precision", "threads", "size")]
    command = [sys.executable, __file__, f"--row={row}", f"--folder={folder}", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run; exit code 1 when a process needs more than 24 GB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["1.5", "2.1"], default="1.5")
    parser.add_argument("--divide", type=int, default=1, help="divide every width, for a trial")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", nargs="*", default=ROWS)
    parser.add_argument("--folder", type=Path, help="write the folder here and keep it; there already: use it")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        child(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name) / "sd"
        if not (folder / "model_index.json").exists():
            run("write", options, folder)
        bytes_there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(
            f"Stable Diffusion {options.kind}, widths / {options.divide}, {bytes_there / 1e9:.2f} GB of 16 bits; "
            f"{options.size} px, {options.precision}, {options.threads} threads, load before {os.getloadavg()[0]:.1f}"
        )
        found = {}
        for row in options.rows:
            found[row] = run(row, options, folder)
            print(f"{row}: loaded in {found[row]['load_s']:.1f} s, {found[row]['work_s']:.1f} s of work, "
                  f"peak {found[row]['peak_gb']:.2f} GB", flush=True)  # fmt: skip
            if row in ("coarse", "fine"):
                said = run(f"dry-{row}", options, folder)
                memory, peak = said["memory_bytes"]["total"] / 1e9, found[row]["peak_gb"]
                speed = said["gmac_per_step"] / found[row]["work_s"]
                share = said["share_of_matmul"] * said["seconds_per_step"] / found[row]["work_s"]
                print(f"  dry run: {memory:.2f} GB ({memory / peak - 1:+.0%}), {said['gmac_per_step']:.0f} GMAC, "
                      f"{said['seconds_per_step']:.1f} s", flush=True)  # fmt: skip
                print(f"  the step ran at {speed:.1f} GMAC/s, {share:.0%} of matrix products", flush=True)
    for row in ("coarse", "fine", "sample"):
        if row in found and f"plain-{row}" in found:
            ours, plain = found[row], found[f"plain-{row}"]
            print(f"{row} beside plain diffusers: {plain['work_s'] / ours['work_s']:.2f}x as fast, "
                  f"{ours['peak_gb'] / plain['peak_gb']:.2f} of the memory")  # fmt: skip
    if (most := max(result["peak_gb"] for result in found.values())) > LIMIT_GB:
        raise SystemExit(f"a peak of {most:.1f} GB is more than {LIMIT_GB:.0f}")


if __name__ == "__main__":
    main()
