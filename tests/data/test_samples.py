"""Samples read by number: data sets of torch, of Hugging Face's make, pairs; what is wrong is named with its number."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.arrays import find_bfloat16
from layered_lr.data import Batches, load_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4
ARRAYS = ll.Dataset("arrays", PIXELS[:12], LABELS[:12], PIXELS[12:], LABELS[12:])


class Pairs:
    """As people write them; counts what is read."""

    def __init__(self, images: Any, labels: Any, **more: Any) -> None:
        self.images, self.labels, self.reads = images, labels, 0
        vars(self).update(more)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        self.reads += 1
        return self.images[index], self.labels[index]


def pairs(part: slice, **more: Any) -> Pairs:
    return Pairs(PIXELS[part], LABELS[part], **more)


def check_same(data: ll.Dataset) -> None:
    assert data.facts == ARRAYS.facts
    for ours, theirs in zip(
        Batches(data, 5, seed=2, augment=True).epoch(1), Batches(ARRAYS, 5, seed=2, augment=True).epoch(1), strict=True
    ):
        assert ours[0].tobytes() == theirs[0].tobytes() and ours[1].tobytes() == theirs[1].tobytes()
    assert (
        np.asarray(data.x_test).tobytes() == ARRAYS.x_test.tobytes() and data.y_test.tolist() == ARRAYS.y_test.tolist()
    )


def test_a_place_in_tuples_is_chosen() -> None:
    triples = [(index, PIXELS[index], int(LABELS[index]), index % 2) for index in range(20)]
    for label in (2, -2):
        data = load_dataset(ll.Samples(triples, triples, image=1, label=label))
        assert data.num_classes == 4 and data.y_train.tolist() == LABELS.tolist()
        np.testing.assert_array_equal(np.asarray(data.x_train), PIXELS)
    assert load_dataset(ll.Samples(triples, image=1, label=3)).num_classes == 2
    for given, why in (
        ({"label": 4}, r"train\[0\] is a tuple of 4: .*label=4.* 0 to 3"),
        ({"image": "picture"}, "image='picture'.* is no place"),
        ({"image": 1, "label": "class"}, "label='class'.* is no place"),
    ):
        with pytest.raises(ll.DataError, match=why):
            load_dataset(ll.Samples(triples, **given))
    with pytest.raises(ll.SpecError, match="label=True: must be a key"):
        ll.Samples(triples, label=True)


def test_masks_keep_to_their_images() -> None:
    """torch's own loader does not turn an image as its EXIF data say, and nothing scales the mask with it."""
    image_of = pytest.importorskip("PIL.Image")

    def read(turn: int) -> Any:
        pixels, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
        pixels[:4], mask[:4] = 255, 1
        image = image_of.fromarray(pixels)
        image.getexif()[0x0112] = turn
        return image, image_of.fromarray(mask)

    pairs = [read(turn) for turn in (1, 3, 6, 8)]
    data = load_dataset(ll.Samples(pairs, pairs))
    for index in range(4):
        shown = np.asarray(data.x_train[np.array([index])])[0, :, :, 0] > 0
        np.testing.assert_array_equal(shown, np.asarray(data.y_train[index]) > 0)
    turned = load_dataset(ll.Samples([(image, number % 2) for number, (image, _) in enumerate(pairs)] * 2))
    assert not np.asarray(turned.x_train[np.arange(4)])[:, :4, :, 0].all()  # images of classes are turned
    with pytest.raises(ll.SpecError, match="size=4 would scale the images, and not the targets"):
        load_dataset(ll.Samples(pairs, pairs, size=4))


def test_the_size_of_the_run_takes_the_place_of_theirs() -> None:
    image_of = pytest.importorskip("PIL.Image")
    pairs = [(image_of.fromarray(pixels), int(label)) for pixels, label in zip(PIXELS, LABELS, strict=True)]
    assert load_dataset(ll.Samples(pairs, size=3), image_size=5).facts.image_shape == (3, 5, 5)


def torch_datasets(kind: str) -> Any:
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    if kind == "tensors":
        images = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy())
        return [data.TensorDataset(images[:12], torch.from_numpy(LABELS[:12])),
                data.TensorDataset(images[12:], torch.from_numpy(LABELS[12:]))]  # fmt: skip
    whole = pairs(slice(None), targets=LABELS.tolist())
    if kind == "subsets":
        return [data.Subset(whole, range(12)), data.Subset(whole, range(12, 20))]
    return [data.ConcatDataset([pairs(slice(5)), pairs(slice(5, 12))]), pairs(slice(12, 20))]


@pytest.mark.parametrize("kind", ["pairs", "tensors", "subsets", "concat", "pillow", "dicts"])
def test_samples_are_the_same_as_arrays(kind: str) -> None:
    if kind in ("tensors", "subsets", "concat"):
        train, test = torch_datasets(kind)
    elif kind == "pillow":
        from PIL import Image

        train, test = (Pairs([Image.fromarray(x) for x in PIXELS[p]], LABELS[p]) for p in (slice(12), slice(12, 20)))
    elif kind == "dicts":
        rows = [{"img": image, "label": int(label)} for image, label in zip(PIXELS, LABELS, strict=True)]
        check_same(load_dataset(ll.Samples(rows[:12], rows[12:])))
        named = [{"picture": row["img"], "kind": row["label"]} for row in rows]
        check_same(load_dataset(ll.Samples(named[:12], named[12:], image="picture", label="kind")))
        return
    else:
        train, test = pairs(slice(12)), pairs(slice(12, 20))
    check_same(load_dataset((train, test)))


class Table:
    """A data set with columns, as those of Hugging Face."""

    column_names = ("image", "label")

    def __init__(self, part: slice) -> None:
        self.column_names = ["image", "label"]
        self.features = {"label": SimpleNamespace(names=["ant", "bee", "cow", "doe"])}
        self.part, self.reads = part, 0

    def __len__(self) -> int:
        return len(LABELS[self.part])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return LABELS[self.part].tolist()
        self.reads += 1
        return {"image": PIXELS[self.part][key], "label": int(LABELS[self.part][key])}


def test_a_table_of_parts_with_names_and_labels() -> None:
    tables = {"train": Table(slice(12)), "test": Table(slice(12, 20))}
    data = load_dataset(tables)  # type: ignore[arg-type]  # as a DatasetDict
    assert data.class_names == ("ant", "bee", "cow", "doe")
    assert tables["test"].reads == 1  # its labels are in a column; the key is in a sample
    check_same(data)
    assert load_dataset({"train": Table(slice(None))}).facts.train_size == 16  # type: ignore[dict-item]
    dev = {"train": Table(slice(12)), "dev": Table(slice(12, 20))}
    assert load_dataset(dev).facts[:2] == (12, 8)  # type: ignore[arg-type]


def test_a_random_transform_depends_on_epoch_and_sample_alone() -> None:
    torch = pytest.importorskip("torch")

    class Noisy(Pairs):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return torch.from_numpy(image / 255).permute(2, 0, 1) + torch.rand(1), label

    data = load_dataset((Noisy(PIXELS[:12], LABELS[:12]), Noisy(PIXELS[12:], LABELS[12:])))
    torch.manual_seed(0)

    def epoch(number: int, batch_size: int) -> bytes:
        parts = Batches(data, batch_size, seed=1).epoch(number)
        return b"".join(images.tobytes() for images, _ in parts)

    first = epoch(0, 4)
    assert first == epoch(0, 6) == epoch(0, 12) != epoch(1, 4)
    assert data.x_train.dtype == np.float32 and data.mean is None
    assert data.digest() == load_dataset((Noisy(PIXELS[:12], LABELS[:12]), Noisy(PIXELS[12:], LABELS[12:]))).digest()
    assert data.digest() != ARRAYS.digest()


def test_pillow_images_of_many_sizes_are_resized() -> None:
    from PIL import Image

    images = [Image.fromarray(PIXELS[index].repeat(1 + index % 3, 0)) for index in range(20)]
    data = load_dataset(ll.Samples(Pairs(images, LABELS), size=4))
    assert data.facts.image_shape == (3, 4, 4)
    assert load_dataset(Pairs(images, LABELS), image_size=5).facts.image_shape == (3, 5, 5)
    assert load_dataset(ll.Samples(Pairs(images, LABELS), size=4, grey=True)).facts.image_shape == (1, 4, 4)
    with pytest.raises(ll.DataError, match=r"sample \d+: its image is uint8 .* but the first one is .*size="):
        load_dataset(Pairs(images, LABELS))


class Failing(Pairs):
    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise OSError("disk gone")
        return super().__getitem__(index)


def changed(index: int, value: Any) -> list[Any]:
    rows: list[Any] = list(zip(PIXELS, LABELS.tolist(), strict=True))
    rows[index] = value
    return rows


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Failing(PIXELS, LABELS), r"train\[3\] cannot be read \(OSError: disk gone\)"),
        (ll.Samples([]), r"train is empty"),
        (ll.Samples(changed(3, 7)), r"train\[3\] is a int: a sample must be \(image, label\)"),
        (ll.Samples(changed(3, (PIXELS[0], "cat"))), r"train\[3\]: its label is 'cat': must be a class number"),
        (ll.Samples(changed(3, (PIXELS[0], -1))), r"labels of train\[3\] is -1"),
        (ll.Samples(changed(3, ([[1, 2], [3]], 1))), r"train\[3\]: its image cannot become a NumPy array \(ValueError"),
        (ll.Samples(changed(3, ("x.jpg", 1))), r"train\[3\]: its image is <U5 of shape \(\)"),
        (ll.Samples(changed(3, (PIXELS[0] / np.nan, 1))), r"train\[3\] looks like NHWC, but float images are NCHW"),
        (ll.Samples(changed(3, (PIXELS[0].astype(int), 1))), r"train\[3\] must be uint8 NHWC or float"),
        (ll.Samples(changed(3, {"picture": PIXELS[0]})), r"train\[3\] has 'picture': say which is the image"),
        (ll.Samples(changed(3, (PIXELS[0], 9))), r"class 9 has one sample, and needs two or more"),
        (
            ll.Samples(pairs(slice(12)), Pairs(PIXELS[12:, :4], LABELS[12:])),
            r"sample 0: its image is uint8 of shape \(4",
        ),
        (pairs(slice(None), targets=LABELS[::-1].tolist()), r"its label is \d, but the data set's list of labels says"),
        (ll.Samples(pairs(slice(None)), class_names=["a"]), r"class_names has 1 names"),
    ],
)
def test_what_is_wrong_with_a_sample_is_said_with_its_number(data: Any, words: str) -> None:
    with pytest.raises(ll.DataError, match=words):
        np.asarray(load_dataset(data).x_test)


def test_bfloat16_is_widened_wherever_it_stands() -> None:
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy()).bfloat16()
    values = torch.arange(20).bfloat16() / 8
    tensors = torch.utils.data.TensorDataset(images, values)
    expected = load_dataset((images.float(), values.float(), images.float(), values.float()))
    numpy = (images.float().numpy().astype(find_bfloat16()), values.float().numpy().astype(find_bfloat16()))
    for data in ((tensors, tensors), ll.Samples(list(tensors), list(tensors)), (images, values) * 2, numpy * 2):
        found = load_dataset(data)
        assert np.asarray(found.x_train).dtype == np.float32
        np.testing.assert_array_equal(found.x_train[:], expected.x_train)
        np.testing.assert_array_equal(found.y_test, expected.y_test)


def test_the_advice_for_axes_in_another_order_holds_for_a_sample() -> None:
    torch = pytest.importorskip("torch")
    tensors = torch.from_numpy(PIXELS)
    for wrong in (tensors, tensors.float(), tensors.float().numpy(), tensors.permute(0, 3, 1, 2).numpy()):
        with pytest.raises(ll.DataError, match=r"train\[0\] looks like") as caught:
            load_dataset(ll.Samples(list(zip(wrong, LABELS.tolist(), strict=True))))
        advice = str(caught.value).partition("use ")[2].partition(". ")[0]
        right = [(eval(advice, {"x": image}), label) for image, label in zip(wrong, LABELS.tolist(), strict=True)]
        assert load_dataset(ll.Samples(right)).facts.image_shape == (3, 6, 6), advice


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ll.Samples(iter([])), r"train is a list_iterator\. It must have a length"),
        (lambda: ll.Samples(PIXELS), r"train is a ndarray"),
        (lambda: ll.Samples(pairs(slice(4)), 3), r"test is a int"),
        (lambda: ll.Samples(pairs(slice(4)), share=0), r"share=0: must be a number above 0"),
        (lambda: ll.Samples(pairs(slice(4)), fit="zoom"), r"fit='zoom': must be 'crop'"),
        (lambda: ll.Samples(pairs(slice(4)), size="big"), r"size must be a whole number"),
        (lambda: ll.Samples(pairs(slice(4)), grey="no"), r"grey='no'"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        make()


def test_streams_and_loaders_inside_of_samples_are_refused_with_what_to_give() -> None:
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc,type-arg]
        def __iter__(self) -> Any:
            return iter([])

    loader = torch.utils.data.DataLoader(torch_datasets("tensors")[0], batch_size=3, shuffle=True)
    with pytest.raises(ll.LayeredLRError, match=r"DataLoader makes batches of its own.*\.dataset.*batch_size=3"):
        ll.Samples(loader)
    with pytest.raises(ll.SpecError, match="Stream"):
        load_dataset(Stream())
