"""A Tiger model and diffusers' MultiControlNet pipeline over the same weights, for `bench_sampling.py`."""

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from tigergen.model import TigerPipeline, add_control, build
from tigergen.model.codec import block_size
from tigergen.model.encoders import ControlEncoder
from tigergen.sampling.schedulers import image_noise, make_sampler
from tigergen.training import presets

WORDS = "one, two"


class Hint(nn.Module):
    """diffusers' own condition embedding in the place of ours: it reads a colour image."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, condition: Tensor) -> Tensor:
        """Embed grey [B, 1, H, W]."""
        return self.embedding(condition.expand(-1, 3, -1, -1))


def tiny_model() -> TigerPipeline:
    """The shape of the tiny preset, random weights."""
    return with_control(build(presets.load("tiny"), WORDS.split(", "), seed=0))


def sd_model(pixels: int, widths: tuple[int, ...] = (320, 640, 1280, 1280)) -> TigerPipeline:
    """The shape of Stable Diffusion 1.5 (U-Net 860 M, two encoders of 361 M), random weights, in a few seconds."""
    words = build({"model": {"text_width": 768, "text_length": 77, "text_heads": 12}}, WORDS.split(", "))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, block_out_channels=widths).eval()
        vae = AutoencoderKL(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(128, 256, 512, 512),
            layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()  # fmt: skip
    pipe = TigerPipeline(vae, words.text_encoder, words.tokenizer, unet, words.scheduler, image_size=pixels)
    return with_control(pipe)


def with_control(pipe: TigerPipeline) -> TigerPipeline:
    """Encoders whose zero convolutions are not zero, as after training."""
    add_control(pipe, seed=1)
    generator = torch.Generator().manual_seed(2)
    for encoder in (pipe.fg_encoder, pipe.bg_encoder):
        for zero in encoder.zero_convolutions:
            nn.init.normal_(zero.weight, std=0.3 / zero.in_channels**0.5, generator=generator)
    return pipe


def controlnet(pipe: TigerPipeline, encoder: ControlEncoder) -> ControlNetModel:
    """diffusers' ControlNet with an encoder's weights and a condition embedding of its own kind.

    In guess mode diffusers scales level i of n by logspace(-1, 0, n)[i]. The zero convolutions are divided by it, so
    that there the features are those of the encoder.
    """
    widths = (16, 32, 96, 256)[: int(np.log2(block_size(pipe.vae))) + 1]
    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=widths).eval()
    for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
        getattr(net, name).load_state_dict(getattr(encoder, name).state_dict(), assign=True)
    if encoder.add_embedding is not None:
        # from_unet forgets the number of heads that pool the words.
        net.add_embedding = encoder.add_embedding
    outputs = [*net.controlnet_down_blocks, net.controlnet_mid_block]
    for own, zero, scale in zip(outputs, encoder.zero_convolutions, torch.logspace(-1, 0, len(outputs)), strict=True):
        own.weight.data, own.bias.data = zero.weight.data / scale, zero.bias.data / scale
    nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.05)
    return net


class Pair:
    """Calls that sample the same images with our pipeline and with diffusers', each giving the final latents.

    Guess mode leaves the unguided half without control, as equation 13 does: there the results must be equal. As its
    default, diffusers computes the control of the unguided half too. Texts are encoded beforehand; decoding is counted
    and done by one function. Ours runs in mode `sum` without token weights.
    """

    def __init__(self, pipe: TigerPipeline, batch: int, steps: int, guidance: float = 5.0) -> None:
        self.pipe, self.batch, self.steps, self.guidance = pipe, batch, steps, guidance
        size, rng = int(pipe.config["image_size"]), np.random.default_rng(0)
        self.masks = (rng.random((batch, size, size)) > 0.5).astype(np.uint8)
        self.sobels = rng.integers(0, 256, (batch, size, size), dtype=np.uint8)
        with torch.no_grad():
            states = dict(zip(("", WORDS), pipe.text_states(["", WORDS]), strict=True))
        pipe.text_states = lambda prompts: torch.stack([states[WORDS if p else ""] for p in prompts])
        self.decode, self.last = pipe.to_images, torch.empty(0)
        pipe.to_images = self._decode_and_keep
        # Modules of its own, because ours have other attention processors, over the same weights.
        self.plain = copy.deepcopy(pipe.unet, {id(weight): weight for weight in pipe.unet.parameters()})
        for attention in self.plain.modules():
            if isinstance(attention, Attention):
                attention.set_processor(AttnProcessor2_0())
        self.nets = [controlnet(pipe, encoder) for encoder in (pipe.fg_encoder, pipe.bg_encoder)]
        for encoder, net in zip((pipe.fg_encoder, pipe.bg_encoder), self.nets, strict=True):
            encoder.condition = Hint(copy.deepcopy(net.controlnet_cond_embedding))
        self.peer = StableDiffusionControlNetPipeline(
            vae=AutoencoderKL(block_out_channels=(4,) * int(np.log2(block_size(pipe.vae)) + 1), norm_num_groups=1,
                              down_block_types=("DownEncoderBlock2D",) * int(np.log2(block_size(pipe.vae)) + 1),
                              up_block_types=("UpDecoderBlock2D",) * int(np.log2(block_size(pipe.vae)) + 1)),
            text_encoder=None, tokenizer=None, unet=self.plain, controlnet=self.nets,
            scheduler=make_sampler("dpm++", pipe.scheduler, steps), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        self.peer.set_progress_bar_config(disable=True)

    def _decode_and_keep(self, latents: Tensor) -> np.ndarray:
        self.last = latents
        return self.decode(latents)

    def ours(self) -> Tensor:
        """Our pipeline."""
        words = [WORDS] * self.batch
        self.pipe(words, words, self.masks, self.sobels, seeds=range(self.batch), steps=self.steps, mode="sum",
                  guidance=self.guidance, sampler="dpm++")  # fmt: skip
        return self.last

    def theirs(self, guess: bool) -> Tensor:
        """diffusers' pipeline."""
        pictures = [torch.from_numpy(self.masks).float(), torch.from_numpy(self.sobels).float() / 255]
        text, empty = (self.pipe.text_states([p] * self.batch) for p in (WORDS, ""))
        shape = (self.pipe.unet.config["in_channels"], *(n // block_size(self.pipe.vae) for n in self.masks.shape[1:]))
        made = self.peer(
            prompt_embeds=text, negative_prompt_embeds=empty, image=[p[:, None].repeat(1, 3, 1, 1) for p in pictures],
            latents=image_noise(range(self.batch), shape)[0], num_inference_steps=self.steps, guess_mode=guess,
            guidance_scale=self.guidance, output_type="latent",
        )  # fmt: skip
        self._decode_and_keep(made.images)
        return self.last


def difference(left: Tensor, right: Tensor) -> float:
    """|left - right| / |right|."""
    return float((left - right).norm() / right.norm())
