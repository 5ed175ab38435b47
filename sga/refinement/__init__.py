"""Refinement of latents: plain torch; it knows no file."""
