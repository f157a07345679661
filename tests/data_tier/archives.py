"""Synthetic archives in the upstream formats that the real TFDS builders of VTAB-1k read.

Just enough examples for every slice (800 + 200) and a short test split; the picture is a noisy pattern that depends on the
label, so a classifier can learn it. Class names come from the installed tensorflow_datasets.
"""

import io
import json
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
TRAIN, VAL, TEST = 840, 220, 60  # where the builder has its own validation split
ONE = 2200  # where VTAB cuts validation out of the last 10 % of train
SPLITS = (("train", TRAIN), ("validation", VAL), ("test", TEST))


def picture(label, height, width, channels=3, task=0):
    """A 4 x 4 pattern fixed by the label, enlarged, plus noise."""
    pattern = np.random.default_rng([task, int(label)]).integers(40, 216, (4, 4, channels))
    rows, cols = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    noise = RNG.integers(-25, 26, (8, 8, channels))
    noise = noise[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width]
    return np.clip(pattern[rows][:, cols] + noise, 0, 255).astype(np.uint8)


def encoded(array, kind):
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(
        buffer, kind, **({"quality": 90} if kind == "JPEG" else {})
    )
    return buffer.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def class_names(name, key="label"):
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir="unused").info.features[key].names


def add_bytes(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def caltech101(out):  # 31 images a class: 30 go to train
    path = out / "caltech-101" / "101_ObjectCategories.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for label, name in enumerate(class_names("caltech101")):
            for i in range(1, 32):
                data = encoded(picture(label, 30, 40), "JPEG")
                add_bytes(tar, f"101_ObjectCategories/{name}/image_{i:04d}.jpg", data)


def cifar100(out):
    for split, n in (("train", ONE), ("test", TEST)):
        rows = []
        for i in range(n):
            rows.append(
                bytes([i % 20, i % 100]) + picture(i % 100, 32, 32).transpose(2, 0, 1).tobytes()
            )
        put(out / "cifar-100-binary" / f"{split}.bin", b"".join(rows))
    for name, n in (("coarse", 20), ("fine", 100)):
        put(
            out / "cifar-100-binary" / f"{name}_label_names.txt",
            "".join(f"{name}{i}\n" for i in range(n)),
        )


def dtd(out):
    names = class_names("dtd")
    for split, (_, n) in zip(("train1", "val1", "test1"), SPLITS, strict=False):
        files = []
        for i in range(n):
            name = names[i % len(names)]
            files.append(f"{name}/{name}_{split}{i:04d}.jpg")
            put(
                out / "dtd" / "images" / files[-1], encoded(picture(i % len(names), 45, 60), "JPEG")
            )
        put(out / "dtd" / "labels" / f"{split}.txt", "".join(f + "\n" for f in files))


def oxford_flowers102(out):
    from scipy.io import savemat

    ids, labels, first = {}, [], 1
    for key, (_, n) in zip(("trnid", "valid", "tstid"), SPLITS, strict=False):
        ids[key] = np.arange(first, first + n)[None]
        for image_id in range(first, first + n):
            labels.append(image_id % 102 + 1)
            put(
                out / "images" / "jpg" / f"image_{image_id:05d}.jpg",
                encoded(picture(image_id % 102, 50, 66), "JPEG"),
            )
        first += n
    savemat(out / "setid.mat", ids)
    savemat(out / "imagelabels.mat", {"labels": np.array(labels)[None]})


def oxford_iiit_pet(out):
    names = class_names("oxford_iiit_pet")
    box = (
        "<annotation><size><width>50</width><height>37</height></size><object><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    for split, n in (("trainval", 1100), ("test", TEST)):
        lines = []
        for i in range(n):
            label = i % 37
            stem = f"{names[label]}_{split}{i}"
            lines.append(f"{stem} {label + 1} {1 + label % 2} 1\n")
            put(out / "images" / f"{stem}.jpg", encoded(picture(label, 37, 50), "JPEG"))
            trimap = RNG.integers(1, 4, (37, 50, 1), dtype=np.uint8)
            put(out / "annotations" / "trimaps" / f"{stem}.png", encoded(trimap, "PNG"))
            put(out / "annotations" / "xmls" / f"{stem}.xml", box)
        put(out / "annotations" / f"{split}.txt", "".join(lines))


def sun397(out):
    names = class_names("sun397/tfds")
    out.mkdir(parents=True)
    with tarfile.open(out / "SUN397.tar.gz", "w:gz", compresslevel=1) as tar:
        for key, (_, n) in zip(("tr", "va", "te"), SPLITS, strict=False):
            files = [f"{names[i * 7 % 397]}/sun_{key}{i:06d}.jpg" for i in range(n)]
            put(out / f"sun397_tfds_{key}.txt", "".join(f + "\n" for f in files))
            for i, file in enumerate(files):
                add_bytes(tar, "SUN397" + file, encoded(picture(i * 7 % 397, 30, 40), "JPEG"))
    put(out / "Partitions" / "Training_01.txt", "")
    put(out / "Partitions" / "Testing_01.txt", "")


def svhn_cropped(out):
    from scipy.io import savemat

    out.mkdir(parents=True)
    for split, n in (("train", ONE), ("test", TEST), ("extra", 4)):
        images = np.stack([picture(i % 10, 32, 32) for i in range(n)], -1)
        digits = np.array([[i % 10 or 10] for i in range(n)], np.uint8)  # 10 stands for the digit 0
        savemat(out / f"{split}_32x32.mat", {"X": images, "y": digits})


def patch_camelyon(out):
    import h5py

    out.mkdir(parents=True)
    for split, (_, n) in zip(("train", "valid", "test"), SPLITS, strict=False):
        stem = f"camelyonpatch_level_2_split_{split}"
        with h5py.File(out / f"{stem}_x.h5", "w") as f:
            f["x"] = np.stack([picture(i % 2, 96, 96) for i in range(n)])
        with h5py.File(out / f"{stem}_y.h5", "w") as f:
            f["y"] = (np.arange(n, dtype=np.uint32) % 2).reshape(n, 1, 1, 1)


def eurosat(out):
    names = class_names("eurosat/rgb")
    for i in range(1400):
        name = names[i % 10]
        put(
            out / "2750" / name / f"{name}_{i // 10 + 1}.jpg",
            encoded(picture(i % 10, 64, 64), "JPEG"),
        )


def resisc45(out):
    names = class_names("resisc45")
    for i in range(1400):
        name = names[i % 45]
        put(
            out / "NWPU-RESISC45" / name / f"{name}_{i // 45 + 1:03d}.jpg",
            encoded(picture(i % 45, 256, 256), "JPEG"),
        )


def diabetic_retinopathy_detection(out):
    train, solution = ["image,level\n"], ["image,level,Usage\n"]

    def eye(i):  # a dark frame round a disc: the builder finds the radius from the middle row
        image = picture(i % 5, 160, 200)
        y, x = np.mgrid[:160, :200]
        image[(y - 80) ** 2 + (x - 100) ** 2 > 75**2] = 0
        return encoded(image, "JPEG")

    for i in range(TRAIN):
        train.append(f"{i}_left,{i % 5}\n")
        put(out / "train" / f"{i}_left.jpeg", eye(i))
    for i in range(VAL + TEST):
        solution.append(f"{i}_right,{i % 5},{'Public' if i < VAL else 'Private'}\n")
        put(out / "test" / f"{i}_right.jpeg", eye(i))
    put(out / "sample" / "s_left.jpeg", eye(0))
    put(out / "trainLabels.csv", "".join(train))
    put(out / "retinopathy_solution.csv", "".join(solution))


def clevr(out):
    root = out / "CLEVR_v1.0"
    for split, n in (("train", ONE), ("val", TEST), ("test", 4)):
        scenes, questions = [], []
        for i in range(n):
            count, depth = 3 + i % 8, 7.75 + 0.5 * (i // 8 % 6)  # both labels, independently
            file = f"CLEVR_{split}_{i:06d}.png"
            scenes.append(
                {
                    "objects": [
                        {
                            "color": "red",
                            "material": "metal",
                            "shape": ("cube", "sphere", "cylinder")[j % 3],
                            "size": "small",
                            "rotation": 0.0,
                            "3d_coords": [0.0, 0.0, 0.0],
                            "pixel_coords": [10.0, 10.0, depth + j],
                        }
                        for j in range(count)
                    ]
                }
            )
            questions.append({"image_filename": file, "question": "?", "answer": "yes"})
            half = picture(count, 32, 24), picture(i // 8 % 6, 32, 24, task=1)
            put(root / "images" / split / file, encoded(np.concatenate(half, 1), "PNG"))
        put(
            root / "questions" / f"CLEVR_{split}_questions.json",
            json.dumps({"questions": questions}),
        )
        if split != "test":  # upstream publishes no scenes for the test images
            put(root / "scenes" / f"CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))


def dmlab(out):
    import tensorflow as tf

    out.mkdir(parents=True)
    for split, n in SPLITS:
        with tf.io.TFRecordWriter(str(out / f"dmlab-{split}.tfrecord-00000-of-00001")) as writer:
            for i in range(n):
                image = encoded(picture(i % 6, 360, 480), "JPEG")
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "filename": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[f"{split}{i}.jpg".encode()])
                    ),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 6])),
                }
                writer.write(
                    tf.train.Example(
                        features=tf.train.Features(feature=feature)
                    ).SerializeToString()
                )


def kitti(out):  # 20 videos of 110 frames: the builder gives 2 to test, 2 to validation
    out.mkdir(parents=True)
    total = 20 * 110
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
            images.writestr(
                f"training/image_2/{i:06d}.png", encoded(picture(label, 37, 124), "PNG")
            )
    with zipfile.ZipFile(out / "devkit_object.zip", "w") as devkit:
        devkit.writestr("mapping/train_rand.txt", ",".join(str(i + 1) for i in range(total)))
        devkit.writestr(
            "mapping/train_mapping.txt",
            "".join(
                f"2011_09_26 2011_09_26_drive_{i // 110:04d}_sync {i % 110:010d}\n"
                for i in range(total)
            ),
        )


def dsprites(out):
    import h5py

    n = 1280  # 40 orientations x 32 positions
    classes = np.zeros((n, 6), np.int64)
    classes[:, 3], classes[:, 4] = np.arange(n) % 40, np.arange(n) // 40 % 32
    images = np.zeros((n, 64, 64), np.uint8)  # 0/1, as upstream
    for i in range(n):
        x, angle = 4 + int(classes[i, 4] * 1.75), classes[i, 3] * np.pi / 40
        for r in range(-8, 9):
            images[i, int(32 + r * np.sin(angle)), int(np.clip(x + r * np.cos(angle), 0, 63))] = 1
    out.mkdir(parents=True)
    with h5py.File(out / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5", "w") as f:
        f["imgs"] = images
        f["latents/classes"] = classes
        f["latents/values"] = classes.astype(np.float64)


def smallnorb(out):
    out.mkdir(parents=True)

    def matrix(array):
        magic = 507333717 if array.dtype == np.uint8 else 507333716
        dims = list(array.shape) + [1] * (3 - array.ndim)
        return struct.pack(f"<ii{len(dims)}i", magic, array.ndim, *dims) + array.tobytes()

    for stem, n in (
        ("5x46789x9x18x6x2x96x96-training", TRAIN),
        ("5x01235x9x18x6x2x96x96-testing", 460),
    ):
        elevation, azimuth = np.arange(n) % 9, np.arange(n) // 9 % 18
        info = np.stack([np.zeros(n), elevation, azimuth * 2, np.zeros(n)], 1).astype("<i4")
        pairs = [
            np.concatenate([picture(e, 48, 96, 1), picture(a, 48, 96, 1, task=1)])
            for e, a in zip(elevation, azimuth, strict=True)
        ]
        data = np.stack([np.stack([p, p]) for p in pairs])[..., 0]
        for kind, array in (
            ("dat", data),
            ("cat", (np.arange(n) % 5).astype("<i4")),
            ("info", info),
        ):
            put(out / f"smallnorb-{stem}-{kind}.mat", matrix(array))


MAKERS = (
    caltech101, cifar100, dtd, oxford_flowers102, oxford_iiit_pet, sun397, svhn_cropped, patch_camelyon, eurosat, resisc45,
    diabetic_retinopathy_detection, clevr, dmlab, kitti, dsprites, smallnorb,
)  # fmt: skip


def write_all(out):
    """Write every data set into a folder of its builder's name below `out`."""
    for make in MAKERS:
        make(out / make.__name__)
