"""Synthetic archives in the upstream formats that the real TFDS builders of VTAB-1k read.

Just enough examples for every slice (800 + 200) and a short test split. The picture is a noisy
pattern that depends on the label, so a classifier can learn it. Class names come from the installed
tensorflow_datasets.
"""

import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tier.patterns import RNG, add_bytes, jpeg, picture, png, put, put_lines

# Images of a split, where the builder has its own validation split.
TRAIN = 840
VAL = 220
TEST = 60
SIZES = (TRAIN, VAL, TEST)
ONE = 2200  # where VTAB cuts validation out of the last 10 % of train


def class_names(name: str, key: str = "label") -> list[str]:
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir="unused").info.features[key].names


def caltech101(out: Path) -> None:
    """31 images a class: 30 go to train."""
    path = out / "caltech-101" / "101_ObjectCategories.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for label, name in enumerate(class_names("caltech101")):
            for i in range(1, 32):
                file = f"101_ObjectCategories/{name}/image_{i:04d}.jpg"
                add_bytes(tar, file, jpeg(picture(label, 30, 40)))


def cifar100(out: Path) -> None:
    folder = out / "cifar-100-binary"
    for split, n in (("train", ONE), ("test", TEST)):
        rows = []
        for i in range(n):
            pixels = picture(i % 100, 32, 32).transpose(2, 0, 1)
            rows.append(bytes([i % 20, i % 100]) + pixels.tobytes())
        put(folder / f"{split}.bin", b"".join(rows))
    for name, n in (("coarse", 20), ("fine", 100)):
        put_lines(folder / f"{name}_label_names.txt", [f"{name}{i}" for i in range(n)])


def dtd(out: Path) -> None:
    names = class_names("dtd")
    for split, n in zip(("train1", "val1", "test1"), SIZES, strict=True):
        files = []
        for i in range(n):
            label = i % len(names)
            file = f"{names[label]}/{names[label]}_{split}{i:04d}.jpg"
            files.append(file)
            put(out / "dtd" / "images" / file, jpeg(picture(label, 45, 60)))
        put_lines(out / "dtd" / "labels" / f"{split}.txt", files)


def oxford_flowers102(out: Path) -> None:
    from scipy.io import savemat

    ids = {}
    labels = []
    first = 1
    for key, n in zip(("trnid", "valid", "tstid"), SIZES, strict=True):
        ids[key] = np.arange(first, first + n)[None]
        for image_id in range(first, first + n):
            label = image_id % 102
            labels.append(label + 1)
            file = out / "images" / "jpg" / f"image_{image_id:05d}.jpg"
            put(file, jpeg(picture(label, 50, 66)))
        first += n
    savemat(out / "setid.mat", ids)
    savemat(out / "imagelabels.mat", {"labels": np.array(labels)[None]})


def oxford_iiit_pet(out: Path) -> None:
    names = class_names("oxford_iiit_pet")
    annotations = out / "annotations"
    box = (
        "<annotation><size><width>50</width><height>37</height></size>"
        "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    for split, n in (("trainval", 1100), ("test", TEST)):
        lines = []
        for i in range(n):
            label = i % 37
            stem = f"{names[label]}_{split}{i}"
            lines.append(f"{stem} {label + 1} {1 + label % 2} 1")
            put(out / "images" / f"{stem}.jpg", jpeg(picture(label, 37, 50)))
            trimap = RNG.integers(1, 4, (37, 50, 1), dtype=np.uint8)
            put(annotations / "trimaps" / f"{stem}.png", png(trimap))
            put(annotations / "xmls" / f"{stem}.xml", box)
        put_lines(annotations / f"{split}.txt", lines)


def sun397(out: Path) -> None:
    names = class_names("sun397/tfds")
    out.mkdir(parents=True)
    with tarfile.open(out / "SUN397.tar.gz", "w:gz", compresslevel=1) as tar:
        for key, n in zip(("tr", "va", "te"), SIZES, strict=True):
            labels = [i * 7 % 397 for i in range(n)]
            files = [f"{names[label]}/sun_{key}{i:06d}.jpg" for i, label in enumerate(labels)]
            put_lines(out / f"sun397_tfds_{key}.txt", files)
            for file, label in zip(files, labels, strict=True):
                add_bytes(tar, f"SUN397{file}", jpeg(picture(label, 30, 40)))
    put(out / "Partitions" / "Training_01.txt", "")
    put(out / "Partitions" / "Testing_01.txt", "")


def svhn_cropped(out: Path) -> None:
    from scipy.io import savemat

    out.mkdir(parents=True)
    for split, n in (("train", ONE), ("test", TEST), ("extra", 4)):
        images = np.stack([picture(i % 10, 32, 32) for i in range(n)], -1)
        digits = np.array([[i % 10 or 10] for i in range(n)], np.uint8)  # 10 stands for the digit 0
        savemat(out / f"{split}_32x32.mat", {"X": images, "y": digits})


def patch_camelyon(out: Path) -> None:
    import h5py

    out.mkdir(parents=True)
    for split, n in zip(("train", "valid", "test"), SIZES, strict=True):
        stem = f"camelyonpatch_level_2_split_{split}"
        with h5py.File(out / f"{stem}_x.h5", "w") as file:
            file["x"] = np.stack([picture(i % 2, 96, 96) for i in range(n)])
        with h5py.File(out / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(n, dtype=np.uint32) % 2).reshape(n, 1, 1, 1)


def eurosat(out: Path) -> None:
    names = class_names("eurosat/rgb")
    for i in range(1400):
        name = names[i % 10]
        file = out / "2750" / name / f"{name}_{i // 10 + 1}.jpg"
        put(file, jpeg(picture(i % 10, 64, 64)))


def resisc45(out: Path) -> None:
    names = class_names("resisc45")
    for i in range(1400):
        name = names[i % 45]
        file = out / "NWPU-RESISC45" / name / f"{name}_{i // 45 + 1:03d}.jpg"
        put(file, jpeg(picture(i % 45, 256, 256)))


def eye(i: int) -> bytes:
    """A disc on a dark ground: the builder finds its radius from the middle row."""
    image = picture(i % 5, 160, 200)
    y, x = np.mgrid[:160, :200]
    image[(y - 80) ** 2 + (x - 100) ** 2 > 75**2] = 0
    return jpeg(image)


def diabetic_retinopathy_detection(out: Path) -> None:
    train = ["image,level"]
    solution = ["image,level,Usage"]
    for i in range(TRAIN):
        train.append(f"{i}_left,{i % 5}")
        put(out / "train" / f"{i}_left.jpeg", eye(i))
    for i in range(VAL + TEST):
        usage = "Public" if i < VAL else "Private"
        solution.append(f"{i}_right,{i % 5},{usage}")
        put(out / "test" / f"{i}_right.jpeg", eye(i))
    put(out / "sample" / "s_left.jpeg", eye(0))
    put_lines(out / "trainLabels.csv", train)
    put_lines(out / "retinopathy_solution.csv", solution)


def clevr_object(i: int, depth: float) -> dict[str, object]:
    return {
        "color": "red",
        "material": "metal",
        "shape": ("cube", "sphere", "cylinder")[i % 3],
        "size": "small",
        "rotation": 0.0,
        "3d_coords": [0.0, 0.0, 0.0],
        "pixel_coords": [10.0, 10.0, depth],
    }


def clevr(out: Path) -> None:
    root = out / "CLEVR_v1.0"
    for split, n in (("train", ONE), ("val", TEST), ("test", 4)):
        scenes = []
        questions = []
        for i in range(n):
            # Both labels, independent of each other, each in one half of the picture.
            count = 3 + i % 8
            interval = i // 8 % 6
            depth = 7.75 + 0.5 * interval
            file = f"CLEVR_{split}_{i:06d}.png"
            scenes.append({"objects": [clevr_object(j, depth + j) for j in range(count)]})
            questions.append({"image_filename": file, "question": "?", "answer": "yes"})
            halves = [picture(count, 32, 24), picture(interval, 32, 24, task=1)]
            put(root / "images" / split / file, png(np.concatenate(halves, 1)))
        path = root / "questions" / f"CLEVR_{split}_questions.json"
        put(path, json.dumps({"questions": questions}))
        if split != "test":  # upstream publishes no scenes for the test images
            path = root / "scenes" / f"CLEVR_{split}_scenes.json"
            put(path, json.dumps({"scenes": scenes}))


def dmlab(out: Path) -> None:
    import tensorflow as tf

    def bytes_feature(value: bytes) -> object:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    out.mkdir(parents=True)
    for split, n in zip(("train", "validation", "test"), SIZES, strict=True):
        path = out / f"dmlab-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in range(n):
                feature = {
                    "image": bytes_feature(jpeg(picture(i % 6, 360, 480))),
                    "filename": bytes_feature(f"{split}{i}.jpg".encode()),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 6])),
                }
                features = tf.train.Features(feature=feature)
                example = tf.train.Example(features=features)
                writer.write(example.SerializeToString())


def kitti(out: Path) -> None:
    """20 videos of 110 frames: the builder gives 2 to test, 2 to validation."""
    out.mkdir(parents=True)
    frames = 110
    total = 20 * frames
    images = zipfile.ZipFile(out / "data_object_image_2.zip", "w")
    labels = zipfile.ZipFile(out / "data_object_label_2.zip", "w")
    with images, labels:
        for i in range(total):
            label = i % 4
            depth = (5.0, 15.0, 40.0, 3.0)[label]
            kind = "Pedestrian" if label == 3 else ("Car", "Van", "Truck")[i % 3]
            rows = [
                f"{kind} 0.00 0 -0.20 10.00 5.00 30.00 25.00 1.5 1.6 3.7 1.00 1.70 {depth} 0.01",
                "Pedestrian 0.00 0 -0.20 1.00 5.00 9.00 25.00 1.5 1.6 3.7 1.00 1.70 2.00 0.01",
            ]
            labels.writestr(f"training/label_2/{i:06d}.txt", "\n".join(rows))
            images.writestr(f"training/image_2/{i:06d}.png", png(picture(label, 37, 124)))
    drives = [
        f"2011_09_26 2011_09_26_drive_{i // frames:04d}_sync {i % frames:010d}\n"
        for i in range(total)
    ]
    with zipfile.ZipFile(out / "devkit_object.zip", "w") as devkit:
        order = ",".join(str(i + 1) for i in range(total))
        devkit.writestr("mapping/train_rand.txt", order)
        devkit.writestr("mapping/train_mapping.txt", "".join(drives))


def dsprites(out: Path) -> None:
    import h5py

    n = 1280  # 40 orientations x 32 positions
    classes = np.zeros((n, 6), np.int64)
    classes[:, 3] = np.arange(n) % 40
    classes[:, 4] = np.arange(n) // 40 % 32
    images = np.zeros((n, 64, 64), np.uint8)  # 0/1, as upstream
    for i in range(n):
        x = 4 + int(classes[i, 4] * 1.75)
        angle = classes[i, 3] * np.pi / 40
        for radius in range(-8, 9):
            row = int(32 + radius * np.sin(angle))
            column = int(np.clip(x + radius * np.cos(angle), 0, 63))
            images[i, row, column] = 1
    out.mkdir(parents=True)
    path = out / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
    with h5py.File(path, "w") as file:
        file["imgs"] = images
        file["latents/classes"] = classes
        file["latents/values"] = classes.astype(np.float64)


def norb_matrix(array: NDArray[np.generic]) -> bytes:
    """The format of smallNORB's files: magic number, dimensions (at least three), data."""
    magic = 507333717 if array.dtype == np.uint8 else 507333716
    dims = list(array.shape) + [1] * (3 - array.ndim)
    header = struct.pack(f"<ii{len(dims)}i", magic, array.ndim, *dims)
    return header + array.tobytes()


def smallnorb(out: Path) -> None:
    out.mkdir(parents=True)
    for stem, n in (
        ("5x46789x9x18x6x2x96x96-training", TRAIN),
        ("5x01235x9x18x6x2x96x96-testing", 460),
    ):
        elevation = np.arange(n) % 9
        azimuth = np.arange(n) // 9 % 18
        info = np.stack([np.zeros(n), elevation, azimuth * 2, np.zeros(n)], 1)
        stereo = []
        for e, a in zip(elevation, azimuth, strict=True):
            halves = [picture(e, 48, 96, 1), picture(a, 48, 96, 1, task=1)]
            image = np.concatenate(halves)[..., 0]
            stereo.append([image, image])
        matrices = {
            "dat": np.array(stereo),
            "cat": (np.arange(n) % 5).astype("<i4"),
            "info": info.astype("<i4"),
        }
        for kind, array in matrices.items():
            put(out / f"smallnorb-{stem}-{kind}.mat", norb_matrix(array))


MAKERS = (
    caltech101,
    cifar100,
    dtd,
    oxford_flowers102,
    oxford_iiit_pet,
    sun397,
    svhn_cropped,
    patch_camelyon,
    eurosat,
    resisc45,
    diabetic_retinopathy_detection,
    clevr,
    dmlab,
    kitti,
    dsprites,
    smallnorb,
)


def write_all(out: Path) -> None:
    """Write every data set into a folder of its builder's name below `out`."""
    for make in MAKERS:
        make(out / make.__name__)
