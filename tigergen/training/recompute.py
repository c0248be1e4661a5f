"""Gradient checkpointing (Chen et al. 2016): keep the inputs of blocks only and compute the rest again when needed."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(module: nn.Module) -> None:
    """Let every block inside `module` that knows how drop its activations in the forward pass.

    The gradients are the same; the backward pass runs each block's forward pass once more. Blocks of diffusers (U-Net,
    our encoders, autoencoder) and layers of transformers (text encoder) carry the same switch.
    """
    for block in module.modules():
        if not hasattr(block, "gradient_checkpointing"):
            continue
        block.gradient_checkpointing = True  # type: ignore[assignment]
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
        # transformers asks the layer whether it is in training; what is inside it (drop-out) stays as it is.
        block.training = True
