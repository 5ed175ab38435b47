from __future__ import annotations

import torch

from sga.refinement.noise import Noise


def test_noise_of_an_image_is_the_same_in_any_batch() -> None:
    like = torch.zeros(3, 4, 5)
    together = Noise([7, 8, 9]).uniform(like)
    torch.testing.assert_close(Noise([8]).uniform(like[:1])[0], together[1], rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
