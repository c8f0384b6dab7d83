"""BrainTumor: phantoms, loaders of both published layouts, repeated images, weights that are not there, the model."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lumos.errors import DataError
from lumos.workloads.braintumor import BrainTumor
from lumos.workloads.braintumor.data import class_label, decode, find_parts, generate_phantoms, read_images, separate
from lumos.workloads.braintumor.model import Sizes, build, find_weights
from lumos.workloads.braintumor.phantom import CLASSES, phantom
from lumos.workloads.common.classifiers import centroid_accuracy, logistic_accuracy, majority_accuracy

SMALL = Sizes(pixels=32, channels=1, patch=8, width=32, depth=2, heads=2, head_width=0)


def images(count, seed=0, width=20):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (width + k % 5, width), dtype=np.uint8) for k in range(count)]


def save(path, pixels, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def published(tmp_path):
    """A tree in the published layout, with its oddities: names of folders, modes, sizes, hidden and other files."""
    pictures = iter(images(200))
    for split, count in (("Training", 12), ("Testing", 3)):
        for name in ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"):
            for k in range(count):
                save(tmp_path / split / name / f"{k}.png", next(pictures), ("L", "RGB", "P", "RGBA")[k % 4])
    save(tmp_path / "Training" / ".ipynb_checkpoints" / "0.png", next(pictures))
    save(tmp_path / "Training" / "glioma_tumor" / ".ipynb_checkpoints" / "0.png", next(pictures))
    (tmp_path / "Training" / "glioma_tumor" / "Thumbs.db").write_bytes(b"x")
    return tmp_path


def workload(root, cache, **settings):
    return BrainTumor(data={"source": "public", "root": root, "cache": cache, **settings}).tiny()


# ---- phantoms ------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(CLASSES), st.integers(24, 96), st.integers(0, 2**20))
def test_a_phantom_is_a_bright_head_in_dark_air_and_follows_its_seed(kind, pixels, seed):
    image = phantom(kind, pixels, np.random.default_rng(seed))
    assert image.shape == (pixels, pixels)
    assert np.array_equal(image, phantom(kind, pixels, np.random.default_rng(seed)))
    corners = np.concatenate([image[:3, :3], image[-3:, -3:]]).mean()
    middle = image[pixels // 4 : -pixels // 4, pixels // 4 : -pixels // 4].mean()
    assert corners < 50 < middle


def test_a_tumour_changes_the_image_where_it_belongs():
    """The same head with and without: a pituitary tumour in the middle, a meningioma at the rim."""
    from lumos.workloads.braintumor import phantom as module

    rng = np.random.default_rng
    head = module._head("pituitary", 96, rng(0))
    flat = np.full((96, 96), 0.5)
    signal = module.SIGNALS["T1ce"]
    where = {}
    for kind in ("pituitary", "meningioma", "glioma"):
        changed = [np.abs(module.TUMOURS[kind](head, flat, signal, rng(k)) - flat) > 0.05 for k in range(20)]
        assert all(mask.any() for mask in changed)
        assert all(head.rho[mask].max() < module.DURA + 0.06 for mask in changed)  # nothing outside the dura
        where[kind] = np.mean([head.rho[mask].mean() for mask in changed])
    assert where["pituitary"] < 0.25 < where["glioma"] < where["meningioma"]


def test_phantoms_are_written_in_the_published_layout_and_read_back(tmp_path):
    root = generate_phantoms(tmp_path, seed=3, pixels=32, counts={"train": 40, "test": 8})
    parts = find_parts(root)
    assert [sum(p.split == s for p in parts) for s in ("train", "test")] == [40, 8]
    sizes, modes = set(), set()
    for file in root.rglob("*.png"):
        with Image.open(file) as image:
            sizes.add(image.size[0])
            modes.add(image.mode)
    assert modes == {"L", "RGB"}
    assert sizes <= {32, 40, 48}
    arrays = read_images(tmp_path, parts, 32, "fatal")
    assert np.bincount(arrays["labels"]).tolist() == [12, 12, 12, 12]
    # A stopped run goes on: what is there stays, what is missing comes back the same.
    first, second = sorted(root.rglob("*.png"))[:2]
    content, stamp = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    assert generate_phantoms(tmp_path, seed=3, pixels=32, counts={"train": 40, "test": 8}) == root
    assert first.read_bytes() == content
    assert second.stat().st_mtime_ns == stamp


# ---- the published layouts -----------------------------------------------------------------------------------------


def test_folders_with_all_their_oddities(published, tmp_path_factory):
    tiny = workload(published, tmp_path_factory.mktemp("cache"))
    loaders = tiny.loaders()
    assert (loaders.n_train, loaders.n_valid, loaders.n_test) == (43, 5, 12)  # 48 = 43 + 5, hidden ones left out
    x, y = next(iter(loaders.test))
    assert x.shape == (12, 1, 32, 32)
    assert x.min() >= -1
    assert x.max() <= 1
    assert sorted(y.tolist()) == sorted([0, 1, 2, 3] * 3)


def test_parquet_as_hugging_face_writes_it(tmp_path):
    def encoded(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": "a.png"}

    names = ["pituitary_tumor", "no_tumor", "meningioma_tumor", "glioma_tumor"]  # not our order
    feature = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    for split, count in (("train", 16), ("test", 4)):
        pictures = images(count, seed=count)
        table = pa.table({"image": [encoded(p) for p in pictures], "label": [k % 4 for k in range(count)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(feature)})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet", row_group_size=5)
    tiny = workload(tmp_path, tmp_path / "cache")
    x, y = next(iter(tiny.loaders().test))
    assert y.tolist() == [3, 2, 1, 0]
    expected, _ = decode(encoded(images(4, seed=4)[0])["bytes"], "", 32)
    assert torch.equal(x[0, 0], torch.from_numpy(expected.astype(np.float32)) / 127.5 - 1)


@pytest.mark.parametrize(
    ("name", "label"),
    [("glioma", 0), ("Glioma_Tumor", 0), ("meningioma tumour", 1), ("notumor", 2), ("no_tumor", 2), ("healthy", 2),
     ("pituitary", 3)],
)  # fmt: skip
def test_class_names(name, label):
    assert class_label(name, "here") == label


def test_what_is_not_the_layout_is_said(published, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.raises(DataError, match=r"Training/.*there is Training|no images to train with.*there is nothing"):
        find_parts(tmp_path_factory.mktemp("empty"))
    (published / "Testing" / "sarcoma").mkdir()
    with pytest.raises(DataError, match="'sarcoma' is no class of this data set; expected glioma"):
        find_parts(published)
    (published / "Testing" / "sarcoma").rmdir()
    broken = published / "Training" / "no_tumor" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"3\.png: cannot be read"):
        workload(published, cache).loaders()
    assert workload(published, cache, on_error="skip").loaders().n_train == 42
    (published / "Testing" / "no_tumor").rename(published / "Testing" / ".no_tumor")
    with pytest.raises(DataError, match=r"Testing: there is no folder for notumor"):
        find_parts(published)


def test_parquet_without_images_is_said(tmp_path):
    pq.write_table(pa.table({"pixels": [1, 2], "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"columns pixels, label; expected image"):
        find_parts(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="expected a parquet file of images and labels"):
        find_parts(tmp_path)


# ---- repeated images -----------------------------------------------------------------------------------------------


def test_images_in_both_train_and_test_leave_training(published, tmp_path_factory, caplog):
    """The same pixels under another name, mode and format; twice in train, once in test."""
    twin = images(1, seed=99)[0]
    save(published / "Testing" / "glioma_tumor" / "twin.png", twin)
    save(published / "Training" / "glioma_tumor" / "a.png", twin, "RGB")
    save(published / "Training" / "no_tumor" / "b.bmp", twin)
    tiny = workload(published, tmp_path_factory.mktemp("cache"))
    with caplog.at_level("INFO", logger="lumos"):
        loaders = tiny.loaders()
    assert (tiny.duplicates.dropped, tiny.duplicates.distinct, tiny.duplicates.contradictory) == (2, 1, 1)
    again = "2 training images (1 distinct) are also test images, 7.7% of the test split, and were dropped"
    assert again in caplog.text
    assert "1 images stand under two labels" in caplog.text
    assert loaders.n_train + loaders.n_valid == 48
    assert loaders.n_test == 13


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=30, max_size=60), st.integers(0, 5))
def test_no_image_is_in_two_splits(rows, seed):
    """Whatever duplicates what: `rows` are (which image, train or test)."""
    which = np.array([w for w, _ in rows])
    digests = np.zeros((len(rows), 32), np.uint8)
    digests[:, 0] = which
    arrays = {"digests": digests, "labels": which % 4, "splits": np.array([0 if s == 0 else 2 for _, s in rows])}
    splits, duplicates = separate(arrays, seed)
    train, valid, test = (set(which[splits[s]]) for s in ("train", "valid", "test"))
    assert not train & valid
    assert not train & test
    assert not valid & test
    assert sum(len(r) for r in splits.values()) + duplicates.dropped == len(rows)


def test_decoding_sixteen_bits_and_transparency():
    deep = (np.arange(400).reshape(20, 20) * 100).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, format="PNG")
    small, _ = decode(buffer.getvalue(), "", 20)
    assert np.array_equal(small, (255 * (deep / deep.max())).astype(np.uint8))
    grey = np.full((8, 8), 77, np.uint8)
    digests = []
    for mode in ("L", "RGB", "RGBA", "LA", "P"):
        buffer = io.BytesIO()
        Image.fromarray(grey).convert(mode).save(buffer, format="PNG")
        small, digest = decode(buffer.getvalue(), "", 4)
        assert (small == 77).all()
        digests.append(digest.tobytes())
    assert len(set(digests)) == 1


# ---- the model -----------------------------------------------------------------------------------------------------


def test_sizes_of_the_paper():
    sizes = Sizes(pixels=224, channels=3, patch=16, width=768, depth=12, heads=12, head_width=3072)
    with torch.device("meta"):
        model = build(sizes, 4, None)
    # ViT-B/16 without its head has 85,798,656 parameters.
    assert sum(p.numel() for p in model.parameters()) == 85_798_656 + (768 * 3072 + 3072) + (3072 * 4 + 4)


def test_pretrained_fails_at_once_without_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"pretrained=true: timm/vit_base_patch16_224.* is not in the cache"):
        BrainTumor(pretrained=True)
    with pytest.raises(DataError, match="there is no such file"):
        BrainTumor(pretrained=str(tmp_path / "none.safetensors"))
    folder = tmp_path / "models--timm--vit_base_patch16_224.augreg2_in21k_ft_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    weights = folder / "snapshots" / ("0" * 40) / "model.safetensors"
    weights.write_bytes(b"x")
    assert find_weights(True) == weights


def test_weights_from_a_file_are_adapted_or_refused(tmp_path):
    """From RGB at 48 pixels with 10 classes to grey at 32 with 4: blocks as they are, first layer summed over RGB."""
    torch.manual_seed(1)
    source = build(Sizes(48, 3, 8, 32, 2, 2, 0), 10, None)
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    model = build(SMALL, 4, file)
    assert torch.equal(model.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert torch.allclose(model.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True))
    with pytest.raises(DataError, match=r"weights\.pth: cannot be loaded into a ViT of patch 8, width 32, depth 3"):
        build(Sizes(32, 1, 8, 32, 3, 2, 0), 4, file)
    with pytest.raises(DataError, match="cannot be loaded"):
        build(Sizes(32, 1, 8, 64, 2, 2, 0), 4, file)
    file.write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be loaded"):
        build(SMALL, 4, file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"channels": 2}, "channels=2"), ({"pixels": 60}, "multiple of workload.patch"), ({"heads": 5}, "workload.heads"),
     ({"train_images": 3}, "train_images=3"), ({"batch_size": 0}, "batch_size=0"), ({"depth": 0}, "depth=0")],
)  # fmt: skip
def test_settings_that_cannot_be_used(settings, words):
    with pytest.raises(DataError, match=words):
        BrainTumor(**settings)


def test_scores_of_a_known_confusion():
    class Says(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()

    guesses, labels = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 2])
    batch = (guesses.view(-1, 1, 1, 1).float(), labels)
    scores = BrainTumor().scores(Says(), [batch, batch])
    # F1 of glioma 2*1/(1+2), meningioma 2*1/(2+1), no tumour 0, pituitary 0.
    assert scores == pytest.approx({"accuracy": 0.5, "macro_f1": 1 / 3, "recall_glioma": 1, "recall_meningioma": 0.5,
                                    "recall_notumor": 0, "recall_pituitary": 0})  # fmt: skip


def test_an_even_guess_has_loss_one():
    class Even(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 4)

    batch = (torch.zeros(8, 1, 4, 4), torch.arange(8) % 4)
    assert BrainTumor().loss(Even(), batch).item() == pytest.approx(1)


def test_trivial_classifiers_where_the_answer_is_known():
    x = torch.tensor([[0.0, 5.0], [1.0, 5.0], [10.0, 5.0], [11.0, 5.0], [12.0, 5.0]])
    y = torch.tensor([0, 0, 1, 1, 1])
    assert majority_accuracy(y, torch.tensor([0, 1, 1, 2])) == 0.5
    for accuracy in (centroid_accuracy, logistic_accuracy):
        assert accuracy(x, y, torch.tensor([[2.0, 5.0], [9.0, 5.0]]), torch.tensor([0, 1])) == 1
