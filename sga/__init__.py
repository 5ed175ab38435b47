"""Refines the latents of neural image codecs into bitstreams that decode."""
