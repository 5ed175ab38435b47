"""Data sets: crops for training, batches for refinement, named test sets, and the embedded photographs."""
