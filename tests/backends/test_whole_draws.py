"""Random numbers of several processes: those of the images of each are what one process draws for them."""

from __future__ import annotations

from typing import Any

import pytest

from layered_lr.data.share import Share


def drawn(torch: Any, rank: int | None, model: Any, images: Any) -> Any:
    from layered_lr_torch.whole_draws import WholeDraws

    torch.manual_seed(0)
    if rank is None:
        return model(images)
    return WholeDraws(Share(rank, 2)).wrap(model)(images.chunk(2)[rank])


def test_each_process_takes_its_own_of_what_one_draws(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    images = torch.ones(8, 6)
    drop = torch.nn.Dropout(0.5)
    found = [drawn(torch, rank, drop, images) for rank in (0, 1)]
    assert torch.equal(torch.cat(found), drawn(torch, None, drop, images))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("count", "images"), [(2, 5), (4, 6), (3, 2)])
def test_unequal_parts_take_their_own_rows(torch: Any, count: int, images: int) -> None:
    from layered_lr_torch.whole_draws import WholeDraws

    drop, given = torch.nn.Dropout(0.5), torch.arange(1.0, 1 + 7 * 4 * images).reshape(images, 4, 7)
    patches = lambda some: drop(some.reshape(-1, 7) * torch.rand_like(some.reshape(-1, 7)))  # noqa: E731
    torch.manual_seed(0)
    expected = patches(given).reshape(given.shape)
    for rank in range(count):
        part, draws = Share(rank, count).part(images), WholeDraws(Share(rank, count))
        torch.manual_seed(0)
        draws.whole = images
        found = draws.wrap(patches)(given[part.start : part.stop])
        assert torch.equal(found, expected[part.start : part.stop].reshape(-1, 7))


def test_a_smaller_part_tells_noise_of_weights_as_the_whole_batch_did(torch: Any) -> None:
    from layered_lr_torch.whole_draws import WholeDraws

    def noisy(images: Any) -> Any:
        return images + torch.randn(7)

    draws = WholeDraws(Share(1, 2))
    run = draws.wrap(noisy)
    run(torch.zeros(2, 7))
    draws.whole = 3
    torch.manual_seed(0)
    found = run(torch.zeros(1, 7))  # 7 is a multiple of one image
    torch.manual_seed(0)
    assert torch.equal(found, noisy(torch.zeros(1, 7)))


def test_an_axis_of_images_that_is_not_the_first_is_said_once(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    drop = torch.nn.Dropout(0.5)
    twice = lambda images: drop(drop(images.t()))  # noqa: E731
    drawn(torch, 0, twice, torch.ones(8, 7))
    said = capsys.readouterr().err
    assert said.count("whose first axis is not that of the images") == 1 and "shape (7, 4)" in said
