"""What goes between processes does not depend on how many there are, and the model of its cost is what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.many_processes.cost_model import Network, fit, sent_bytes
from benchmarks.many_processes.ranks import Ranks
from benchmarks.many_processes.traffic import Collective, without_gradients
from benchmarks.scaling import Counted

IMAGES = 16  # of all processes together
TINY_GRADIENT_BYTES = 4 * (4 * 3 * 3 * 3 + 4 + 4 + 10 * 256 + 10)


def read(count: int) -> tuple[Counted, list[float]]:
    """The collectives of a tiny network, and what each process sends in an update by its sockets."""
    with Ranks(count) as ranks:
        found = ranks.call("collectives", model="tiny", batch=IMAGES)
        sent = ranks.call("sent_bytes", model="tiny", batch=IMAGES, updates=4)
    gradient_bytes = [each.pop("gradient_bytes") for each in found]
    # Sorted: some are asked for at the same moment, and which one begins first is up to threads.
    lists = [{name: sorted(Collective(*one) for one in these) for name, these in each.items()} for each in found]
    assert all(each == lists[0] for each in lists)  # else they would wait for each other for ever
    return Counted(**lists[0], gradient_bytes=gradient_bytes[0]), sent


@pytest.fixture(scope="module")
def two(torch: Any) -> tuple[Counted, list[float]]:
    return read(2)


def test_an_update_of_two_processes_sends_its_gradients_and_a_few_small_messages(two: Any) -> None:
    counted, sent = two
    assert counted.gradient_bytes == TINY_GRADIENT_BYTES
    messages = [each for each in counted.update if each.payload_bytes < TINY_GRADIENT_BYTES]
    assert len(counted.update) - len(messages) == 1  # one bucket
    assert len(messages) <= 5 and sum(each.payload_bytes for each in messages) <= 100
    assert len(counted.evaluation) == 1 and len(counted.checkpoint) == 3
    for each in counted.evaluation:  # each process sends the answers to its own images alone
        assert each == Collective("all_gather", "float", IMAGES // 2 * 10 * 4)
    headers = 2 * 144 * len(counted.update)  # gloo's own, at most
    print(sent, counted.update, headers)
    assert all(TINY_GRADIENT_BYTES <= each <= sent_bytes(counted.update, 2) + headers + 100 for each in sent)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_four_processes_have_the_collectives_of_two_and_one_has_none(two: Any) -> None:
    of_two, of_four, of_one = two[0], read(4)[0], read(1)[0]
    assert of_four.update == of_two.update and of_four.checkpoint == of_two.checkpoint
    assert [each.kind for each in of_four.evaluation] == [each.kind for each in of_two.evaluation]
    assert [2 * each.payload_bytes for each in of_four.evaluation] == [each.payload_bytes for each in of_two.evaluation]
    assert len(of_four.start) == len(of_two.start)
    assert of_four.facts_bytes < 1.1 * of_two.facts_bytes  # a gathered object is as long as the longest
    assert not (of_one.update or of_one.evaluation or of_one.checkpoint or of_one.start)


def test_the_model_finds_the_costs_that_made_the_times() -> None:
    network = Network(3e-5, 2e-10)
    sizes = (4, 1000, 10**6, 10**7)
    for count in (2, 4):
        taken = {size: network.seconds(Collective("all_reduce", "float", size), count) for size in sizes}
        found = fit(taken, count)
        assert np.allclose([found.alpha_seconds, found.beta_seconds], [3e-5, 2e-10], rtol=1e-9)


def test_a_ring_sends_each_byte_nearly_twice_however_many_processes_there_are() -> None:
    reduce, gather = Collective("all_reduce", "float", 1000), Collective("all_gather", "float", 1000)
    assert sent_bytes([reduce], 2) == 1000 and sent_bytes([reduce], 1024) == pytest.approx(2000, rel=1e-3)
    assert sent_bytes([gather], 4) == 3000
    only_steps, only_bytes = Network(1.0, 0.0), Network(0.0, 1.0)
    assert [only_steps.seconds(reduce, count) for count in (1, 2, 4, 1024)] == [0, 2, 6, 2046]
    assert only_bytes.seconds(reduce, 4) == 1500 and only_bytes.seconds(gather, 4) == 3000
    assert only_steps.seconds(Collective("broadcast", "float", 8), 1024) == 10


def test_gradients_are_told_from_other_messages_by_their_bytes() -> None:
    decision, loss = Collective("all_reduce", "long int", 24), Collective("all_reduce", "float", 4)
    buckets = [Collective("all_reduce", "float", 400), Collective("all_reduce", "float", 100)]
    assert without_gradients([decision, *buckets, loss], 500) == [decision, loss]
    assert without_gradients([loss, decision, *buckets[::-1]], 496) == [loss, decision]
    with pytest.raises(ValueError, match="gradients of 510 bytes, and all-reduces that bring 504"):
        without_gradients([decision, *buckets, loss], 510)
