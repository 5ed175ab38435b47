"""Images: reading, padding, the crops of training, the batches of refinement, and the embedded photographs."""
