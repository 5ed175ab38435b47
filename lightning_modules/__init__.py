"""Training and latent refinement of neural image codecs with PyTorch Lightning."""
