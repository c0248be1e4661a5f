"""From a trained model to images: samplers by name, guidance, per-image noise, the denoising loop."""
