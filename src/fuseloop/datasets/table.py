"""The public data sets: one row for each, from which readers, checks and documents are made."""

from __future__ import annotations

from dataclasses import dataclass

from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES

SPLIT = "{split}"
OTHERS_TERMS = "Research data of others: read their terms before you use it, or what was trained on it."


@dataclass(frozen=True)
class Layout:
    """Where one form of a data set keeps its files, as folders under its root.

    A place is a path of folders, in any case. ``|`` stands between alternatives, of which one must be there;
    ``{split}`` is the folder of the split, and falls away where none is named. Boxes are VOC XML or YOLO text by the
    endings of the files. Files belong together by their stems.

    Attributes:
        infrared: Infrared images.
        visible: Visible images.
        boxes: Label files with boxes.
        segmentation: Masks of class ids.
        saliency: Saliency masks.
        edges: Edge maps of the saliency masks.
    """

    infrared: str
    visible: str
    boxes: str = ""
    segmentation: str = ""
    saliency: str = ""
    edges: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The places of labels by what they hold."""
        places = {part: getattr(self, part) for part in LABEL_PARTS}
        return {part: place for part, place in places.items() if place}


LABEL_PARTS = ("boxes", "segmentation", "saliency", "edges")


@dataclass(frozen=True)
class DataSet:
    """A row of the table.

    Attributes:
        key: Its name in specifications such as ``msrs:PATH``.
        title: Its name in writing.
        features: What is in it, a line each.
        layouts: The forms in which people have it on disk. The one with most of its labels there is read; of equals,
            the first.
        box_names: Names of the classes of boxes, by their number in YOLO files.
        segmentation_names: Names of the segmentation ids, the background first.
        splits: Splits that its owners made, or that a shipped list makes.
        listed: Whether its splits are a list that fuseloop ships, for layouts without a folder for each.
        citation: Paper to cite.
        homepage: Where to get it.
        terms: What its owners allow, as far as we may speak for them.
        remarks: What a reader should know.
    """

    key: str
    title: str
    features: tuple[str, ...]
    layouts: tuple[Layout, ...]
    box_names: tuple[str, ...] = ()
    segmentation_names: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    listed: bool = False
    citation: str = ""
    homepage: str = ""
    terms: str = OTHERS_TERMS
    remarks: tuple[str, ...] = ()


FMB_NAMES = (
    "background", "road", "sidewalk", "building", "lamp", "sign", "vegetation", "sky", "person", "car", "truck", "bus",
    "motorcycle", "bicycle", "pole",
)  # fmt: skip
M3FD_NAMES = ("people", "car", "bus", "motorcycle", "lamp", "truck")

INFRARED_FOLDERS = "ir|infrared|thermal|lwir|inf"
VISIBLE_FOLDERS = "vi|vis|visible|rgb|color|colour"
_GENERIC = {
    "boxes": "labels|label|boxes|annotations|annotation",
    "segmentation": "segmentation|Segmentation_labels|seg|labels|label",
    "saliency": "saliency|salient|gt|mask|masks",
    "edges": "edges|edge",
}

GENERIC = DataSet(
    key="folder",
    title="A folder of your own",
    features=(
        "pairs of any size, depth and format, with any of boxes, segmentation and saliency, or none",
        "classes as its `classes.yaml` names them",
    ),
    layouts=(
        Layout(
            f"{SPLIT}/{INFRARED_FOLDERS}",
            f"{SPLIT}/{VISIBLE_FOLDERS}",
            **{part: f"{SPLIT}/{names}" for part, names in _GENERIC.items()},
        ),
        Layout(
            f"{INFRARED_FOLDERS}/{SPLIT}",
            f"{VISIBLE_FOLDERS}/{SPLIT}",
            **{part: f"{names}/{SPLIT}" for part, names in _GENERIC.items()},
        ),
    ),
    terms="Yours.",
    remarks=(
        "`labels` with text or XML files holds boxes, with images it holds segmentation masks. `mask` holds saliency.",
    ),
)


_ROWS = (
    GENERIC,
    DataSet(
        key="m3fd",
        title="M3FD",
        features=(
            "4,200 pairs of 1024×768 by day, under clouds, at night and in hard conditions, and 300 without labels",
            "boxes",
        ),
        layouts=(
            Layout("Ir", "Vis|vi", boxes="Annotation|Annotations"),
            Layout(f"ir/{SPLIT}", f"vi|vis/{SPLIT}", boxes=f"labels/{SPLIT}"),
            Layout("ir", "vi|vis", boxes="labels"),
        ),
        box_names=M3FD_NAMES,
        splits=("train", "val", "test"),
        listed=True,
        citation=(
            "Liu, Fan, Huang, Wu, Liu, Zhong, Luo: Target-aware Dual Adversarial Learning and a Multi-scenario "
            "Multi-Modality Benchmark to Fuse Infrared and Visible for Object Detection. CVPR 2022."
        ),
        homepage="https://github.com/JinyuanLiu-CV/TarDAL",
        remarks=(
            "No official split exists. fuseloop ships one of groups of 50 neighbouring frames, drawn by a seed: "
            "`train` 2,800, `val` 350 and `test` 1,050 of the frames 00000 to 04199; `train+val` against `test` has "
            "the sizes 3,150 and 1,050 that papers name. It is `src/fuseloop/datasets/splits/m3fd.yaml`, made by "
            "`python tools/m3fd_split.py`. Two groups that touch may still show one street.",
            "Where the folders have splits of their own, those are taken.",
            "The numbers in YOLO files have no names with them, and copies on the net differ in their order. Those of "
            "the table are taken unless a `classes.yaml` beside the folders says otherwise. VOC files carry names.",
        ),
    ),
    DataSet(
        key="fmb",
        title="FMB",
        features=("1,500 pairs of roads, 800×600, 1,220 for training and 280 for tests", "segmentation, 14 classes"),
        layouts=(Layout(f"{SPLIT}/Infrared", f"{SPLIT}/Visible", segmentation=f"{SPLIT}/Label|Labels"),),
        segmentation_names=FMB_NAMES,
        splits=("train", "test"),
        citation=(
            "Liu, Liu, Wu, Ma, Liu, Zhong, Luo, Fan: Multi-interactive Feature Learning and a Full-time Multi-modality "
            "Benchmark for Image Fusion and Segmentation. ICCV 2023."
        ),
        homepage="https://github.com/JinyuanLiu-CV/SegMiF",
        remarks=("Ids are numbered in the order of the paper, after 0 for the background; `data check` counts them.",),
    ),
    DataSet(
        key="vt5000",
        title="VT5000",
        features=("5,000 RGB-T pairs, 640×480, half for training and half for tests", "saliency masks"),
        layouts=(
            Layout(f"{SPLIT}/T", f"{SPLIT}/RGB", saliency=f"{SPLIT}/GT", edges=f"{SPLIT}/Edge|Edges"),
            Layout(f"{SPLIT}/T_GRAY", f"{SPLIT}/RGB", saliency=f"{SPLIT}/GT", edges=f"{SPLIT}/Edge|Edges"),
        ),
        splits=("train", "test"),
        citation=(
            "Tu, Ma, Li, Li, Xu, Liu: RGBT Salient Object Detection: A Large-scale Dataset and Benchmark. "
            "IEEE Transactions on Multimedia, 2022."
        ),
        homepage="https://github.com/lz118/RGBT-Salient-Object-Detection",
        remarks=("Edge maps are read where they are, and made of the masks where they are not.",),
    ),
    DataSet(
        key="vt1000",
        title="VT1000",
        features=("1,000 RGB-T pairs", "saliency masks"),
        layouts=(Layout("T|T_GRAY", "RGB", saliency="GT", edges="Edge|Edges"),),
        citation=(
            "Tu, Xia, Li, Wang, Ma, Tang: RGB-T Image Saliency Detection via Collaborative Graph Learning. "
            "IEEE Transactions on Multimedia 22(1), 2020."
        ),
        homepage="https://github.com/lz118/RGBT-Salient-Object-Detection",
    ),
    DataSet(
        key="vt821",
        title="VT821",
        features=("821 RGB-T pairs", "saliency masks"),
        layouts=(Layout("T|T_GRAY", "RGB", saliency="GT", edges="Edge|Edges"),),
        citation=(
            "Wang, Li, Ma, Zheng, Tang, Luo: RGB-T Saliency Detection Benchmark: Dataset, Baselines, Analysis and a "
            "Novel Approach. IGTA 2018."
        ),
        homepage="https://github.com/lz118/RGBT-Salient-Object-Detection",
    ),
    DataSet(
        key="msrs",
        title="MSRS",
        features=(
            "1,444 pairs of roads by day and night, 640×480, 1,083 for training and 361 for tests",
            "segmentation, 8 classes and the unlabelled; boxes and saliency where there are folders with them",
        ),
        layouts=(
            Layout(
                f"{SPLIT}/ir",
                f"{SPLIT}/vi",
                boxes=f"{SPLIT}/labels",
                segmentation=f"{SPLIT}/Segmentation_labels",
                saliency=f"{SPLIT}/saliency",
            ),
        ),
        box_names=BOX_NAMES,
        segmentation_names=SEGMENTATION_NAMES,
        splits=("train", "val", "test"),
        citation=(
            "Tang, Yuan, Zhang, Jiang, Ma: PIAFusion: A progressive infrared and visible image fusion network based on "
            "illumination aware. Information Fusion 83-84, 2022."
        ),
        homepage="https://github.com/Linfeng-Tang/MSRS",
        remarks=(
            "`fuseloop synthetic` writes this layout. Any folder that holds `ir` and `vi` can be named as a split.",
            "Near objects have a parallax of 2 to 4 pixels between the modalities.",
        ),
    ),
    DataSet(
        key="llvip",
        title="LLVIP",
        features=("15,488 pairs of streets in the dark, 1280×1024, 12,025 for training and 3,463 for tests", "boxes"),
        layouts=(Layout(f"infrared/{SPLIT}", f"visible/{SPLIT}", boxes="Annotations"),),
        box_names=("person",),
        splits=("train", "test"),
        citation="Jia, Zhu, Li, Tang, Zhou: LLVIP: A Visible-infrared Paired Dataset for Low-light Vision. ICCVW 2021.",
        homepage="https://bupt-ai-cz.github.io/LLVIP/",
        remarks=("Every tenth pair, as one paper trains, is `train[::10]`: 1,203 pairs; `test[::10]` has 347.",),
    ),
    DataSet(
        key="roadscene",
        title="RoadScene",
        features=("221 pairs of roads in many sizes", "no labels"),
        layouts=(Layout("cropinfrared", "crop_LR_visible"), Layout("ir|infrared", "vi|vis|visible")),
        citation=(
            "Xu, Ma, Jiang, Guo, Ling: U2Fusion: A Unified Unsupervised Image Fusion Network. IEEE Transactions on "
            "Pattern Analysis and Machine Intelligence 44(1), 2022."
        ),
        homepage="https://github.com/hanna-xu/RoadScene",
    ),
    DataSet(
        key="tno",
        title="TNO",
        features=("military scenes in many sizes; papers take a choice of some 20 to 40 pairs", "no labels"),
        layouts=(Layout("ir|infrared", "vi|vis|visible"),),
        citation="Toet: The TNO Multiband Image Data Collection. Data in Brief 15, 2017.",
        homepage="https://figshare.com/articles/dataset/TNO_Image_Fusion_Dataset/1008029",
    ),
    DataSet(
        key="tno_salient",
        title="TNO with masks",
        features=("pairs of TNO", "saliency masks of the target"),
        layouts=(Layout("ir", "vi|vis", saliency="mask|masks"),),
        citation="Toet: The TNO Multiband Image Data Collection. Data in Brief 15, 2017.",
        homepage="https://figshare.com/articles/dataset/TNO_Image_Fusion_Dataset/1008029",
    ),
)

DATA_SETS: dict[str, DataSet] = {row.key: row for row in _ROWS}
"""All rows by their key."""


def card(row: DataSet) -> str:
    """What there is to know of a data set, in Markdown."""
    split = f" or `{row.key}:PATH:SPLIT`" if any(SPLIT in layout.infrared for layout in row.layouts) else ""
    lines = [f"Opened as `{row.key}:PATH`{split}.", "", *(f"* {feature}" for feature in row.features)]
    if row.splits:
        lines.append(f"* splits {', '.join(row.splits)}" + (", by a list that fuseloop ships" if row.listed else ""))
    for what, names in (("classes of boxes", row.box_names), ("segmentation ids", row.segmentation_names)):
        if names:
            lines.append(f"* {what}: {', '.join(f'{number} {name}' for number, name in enumerate(names))}")
    lines += ["", *_places(row), "", *(f"* {remark}" for remark in row.remarks), *([""] if row.remarks else [])]
    if row.citation:
        lines += [f"Paper: {row.citation}", "", f"Get it: <{row.homepage}>", ""]
    lines.append(f"Terms: {row.terms}")
    return "\n".join(lines)


def _places(row: DataSet) -> list[str]:
    """A table of what lies where, a column for each layout."""
    parts = [part for part in ("infrared", "visible", *LABEL_PARTS) if any(getattr(one, part) for one in row.layouts)]
    heads = ["folders"] if len(row.layouts) == 1 else [f"form {number}" for number in range(1, len(row.layouts) + 1)]
    cells = {part: [_written(getattr(layout, part)) for layout in row.layouts] for part in parts}
    return [
        f"| | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
        *(f"| {part} | {' | '.join(cells[part])} |" for part in parts),
    ]


def _written(place: str) -> str:
    """A place with its alternatives in braces, as shells have it: `SPLIT/{T,T_GRAY}`."""
    parts = [f"{{{part.replace('|', ',')}}}" if "|" in part else part for part in place.split("/")]
    return f"`{'/'.join(parts).replace(SPLIT, 'SPLIT')}`" if place else ""
