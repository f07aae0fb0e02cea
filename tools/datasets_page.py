"""Writes docs/datasets.md from the table of data sets, the kinds of findings and the specifications below.

python tools/datasets_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fuseloop.datasets.classes import CLASSES_FILE
from fuseloop.datasets.findings import BROKEN, NOTED
from fuseloop.datasets.manifest import COLUMNS
from fuseloop.datasets.table import DATA_SETS, card

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"


class Published(NamedTuple):
    """Specifications of a published experiment; ROOT stands for where the data are.

    Attributes:
        title: The experiment.
        train: What it trains on.
        test: What it is tested on.
        form: The tree of the tests that both open.
    """

    title: str
    train: str
    test: str
    form: str


PUBLISHED = (
    Published("CLDyN, T-OAR: detection, M3FD in folders", "m3fd:ROOT:train", "m3fd:ROOT:test", "m3fd yolo"),
    Published("TDFusion: detection, M3FD, 3,150 / 1,050", "m3fd:ROOT:train+val", "m3fd:ROOT:test", "m3fd official"),
    Published("all three: segmentation, FMB, 1,220 / 280", "fmb:ROOT:train", "fmb:ROOT:test", "fmb"),
    Published("CLDyN, T-OAR: saliency, VT5000, 2,500 / 2,500", "vt5000:ROOT:train", "vt5000:ROOT:test", "vt5000"),
    Published("TDFusion: segmentation, MSRS, 1,083 / 361", "msrs:ROOT:train", "msrs:ROOT:test", "msrs official"),
    Published("TDFusion: LLVIP, 1,203 / 347", "llvip:ROOT:train[::10]", "llvip:ROOT:test[::10]", "llvip"),
    Published("CLDyN, T-OAR: fusion, sets in folders", "ROOT:train", "ROOT:test", "a folder with splits"),
)

HEAD = """# Data sets

Made by `python tools/datasets_page.py` from the tables of the code.

fuseloop reads labelled pairs from the folders in which people have them. It downloads nothing and moves nothing.

```python
from fuseloop.datasets.files import open_labelled

pairs = open_labelled("msrs:data/MSRS:train")     # a data set, its folder, a split
pair = pairs[0]                                   # read when it is asked for
pair.infrared, pair.visible                       # H×W and H×W×3, uint8
pair.boxes, pair.classes                          # N×4 absolute x1, y1, x2, y2; N class numbers
pair.segmentation, pair.saliency                  # H×W ids, 255 ignored; H×W from 0 to 255
pairs.box_names, pairs.segmentation_names
```

What is not labelled is None. Images of any depth become 8-bit as everywhere in fuseloop; a visible grey image becomes
three equal channels. Edge maps of saliency masks are read where a data set has them, and
`fuseloop.datasets.labelled.edges_of` makes them of the masks where it has none.

```sh
fuseloop data layouts                                  # what can be read
fuseloop data check msrs data/MSRS --sheet sheet.png   # what is there, what is broken, a contact sheet
```

![Contact sheet of four synthetic scenes: visible, infrared, boxes, segmentation, saliency](figures/contact-sheet.jpg)

The contact sheet of synthetic scenes, made by
`fuseloop data check synthetic 4:7 --sheet docs/figures/contact-sheet.jpg`.

## Specifications

Configurations, commands and `open_labelled` name data in one line; `fuseloop.datasets.folders.open_pairs`, which
training without labels uses, takes the same.

| specification | what it opens |
|---|---|
| `PATH` | a folder of your own |
| `PATH:SPLIT` | a split of it |
| `NAME:PATH` | a data set of the table below, from its folder, or from the folder of one of its splits |
| `NAME:PATH:SPLIT` | a split |
| `NAME:PATH:train+val` | several splits; where they are folders, names of frames begin with that of the split |
| `NAME:PATH:train[::10]` | some frames of it, chosen as in Python |
| `csv:FILE`, `csv:FILE:SPLIT` | a manifest |
| `synthetic:COUNT`, `synthetic:COUNT:SEED` | synthetic scenes of 320×240, which have all labels |

A data set that lies in folders for its splits is not opened without one, so that nobody trains on its test frames by
mistake. Files belong together by their stems, whatever the endings. Folders are found in upper and lower case.

## Labels

* Boxes are VOC XML (`.xml`) or YOLO text (`.txt`, lines of `class cx cy w h`, normalised), told apart by the ending.
  VOC corners are taken as they stand. A box that leaves its image by a pixel at most is clipped.
* Masks of ids are grey images, or palettes whose numbers count and not their colours. 255 is ignored.
* Saliency masks reach from 0 to 255; one of 0 and 1 alone is brought to 0 and 255.
* An empty text file with boxes says that nothing is there. A missing one is a mistake.

Every label and the header of every image is looked at when a data set is opened. What becomes of frames that are broken
is said by `on_error`: `"raise"`, the default, refuses the data set with file and line of the first; `"skip"` leaves the
frames out, and `describe()` and `left_out` tell which. Nothing is ever left out without being asked to.

## What the check finds

`fuseloop data check` reads every file. Its exit code is 0 when nothing is broken, 1 when some frames are, 2 when none
can be used. It prints a line for all that is broken, with the line of text that is wrong; `--json` holds everything.

| broken | what it is |
|---|---|
"""

OWN = f"""
## A folder of your own

A file `{CLASSES_FILE}` in the folder, or in the one above, names the classes:

```yaml
boxes: [person, car]                      # number 0, number 1; the names in VOC files
segmentation: [background, person, car]   # id 0, id 1, id 2
```

A CSV manifest is for files that lie as no layout has it. Its first line names columns:
{", ".join(f"`{column}`" for column in COLUMNS)}; `infrared` and `visible` must be there.
Paths are relative to the manifest, and what a cell leaves out is not labelled. `{CLASSES_FILE}` lies beside it.

```csv
name,infrared,visible,boxes,split
walk_1,thermal/0001.tiff,colour/img_0001.jpg,boxes/0001.txt,train
walk_2,thermal/0002.tiff,colour/img_0002.jpg,boxes/0002.txt,val
```

## Published experiments

| experiment | trained on | tested on |
|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    broken = "".join(f"| {kind} | {meaning} |\n" for kind, meaning in BROKEN.items())
    noted = "".join(f"| {kind} | {meaning} |\n" for kind, meaning in NOTED.items())
    published = "".join(f"| {one.title} | `{one.train}` | `{one.test}` |\n" for one in PUBLISHED)
    cards = "\n\n".join(f"### {row.title}\n\n{card(row)}" for row in DATA_SETS.values())
    return (
        f"{HEAD}{broken}\n| legal, and told | what it is |\n|---|---|\n{noted}{OWN}{published}\n"
        "## The data sets\n\nWhere two forms fit a folder, the one with more of its labels there is read; of equals, "
        f"the first. Folders in braces are alternatives, of which one must be there.\n\n{cards}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
