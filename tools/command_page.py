"""Writes docs/command.md: examples, exit codes, and what the help says of every command and option.

python tools/command_page.py
"""

from __future__ import annotations

from pathlib import Path

from fuseloop.cli import EXIT_CODES, app

PAGE = Path(__file__).parents[1] / "docs" / "command.md"

EXAMPLES = {
    "See it work, without data": "fuseloop demo",
    "One pair": "fuseloop fuse --infrared ir.png --visible vis.png --out fused.png",
    "Two folders, paired by stem; again, to continue after an interruption": (
        "fuseloop fuse --infrared thermal --visible colour --out fused"
    ),
    "One folder with x_ir.png beside x_vis.jpg": (
        "fuseloop fuse --infrared pairs --visible pairs --out fused --suffix _ir,_vis"
    ),
    "Two videos": "fuseloop fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4",
    "Raw thermal video or folders, with one fixed range so that the brightness does not flicker": (
        "fuseloop fuse --infrared raw --visible colour --out fused --infrared-levels range:7000,9500"
    ),
    "Keep the fine steps of a 16-bit thermal image beside an 8-bit photograph": (
        "fuseloop fuse --infrared ir.tiff --visible vis.jpg --out fused.png --depth 16"
    ),
    "The same view at two resolutions": (
        "fuseloop fuse --infrared ir.png --visible vis.png --out fused.png --align resize"
    ),
    "Faster where the processor has bfloat16": (
        "fuseloop fuse --infrared thermal --visible colour --out fused --precision bf16"
    ),
    "Score what was fused, every metric, and keep the values": (
        "fuseloop score --infrared thermal --visible colour --fused fused --json scores.json"
    ),
    "Compare methods by the definitions of a published table, on pages to look at": (
        "fuseloop score --infrared thermal --visible colour --fused ours=a --fused theirs=b --convention cddfuse "
        "--html report"
    ),
    "Weights of your own": "fuseloop fuse --infrared ir.png --visible vis.png --out fused.png --fuser best.safetensors",
    "Training data without data": "fuseloop synthetic --out scenes --count 1000 --size 640x480",
    "See whether a data set is whole, and what its labels look like": (
        "fuseloop data check msrs data/MSRS --sheet sheet.png"
    ),
    "See what a detector finds in fused images": "fuseloop predict --images fused --task-network yolov5s --out seen",
    "See whether fusing helps a detector and a segmenter": (
        "fuseloop evaluate --fuser visible --fuser vfn --task-network yolov5s --task-network segformer-b0 "
        "--dataset msrs:data/MSRS:test --json scores.json"
    ),
    "Fuse for a detector, by a closed loop that you trained": (
        "fuseloop fuse --infrared thermal --visible colour --out fused --fuser loop.safetensors --for yolov5s"
    ),
    "A video for a network of your own, which looks once a frame": (
        "fuseloop fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --fuser loop.safetensors --for my/network "
        "--feedback previous"
    ),
    "Store what a task network requires on average, and fuse without it": (
        "fuseloop profile --task-network yolov5s --dataset msrs:data/MSRS:train --out yolov5s.safetensors"
    ),
    "Count what the parts of the closed loop cost": (
        "fuseloop cost --size 640x480 --size 1024x768 --task-network yolov5s"
    ),
    "See what is understood of an instruction": 'fuseloop explain "make the pedestrians easy to detect, it is night"',
    "Train on folders of your own": "fuseloop train visual --preset paper --out runs/mine root=data seed=1",
}

HEAD = """# The command

Made by `python tools/command_page.py` from the help of the command. What it does with bad input is in
[bad-input.md](bad-input.md).

"""


def page() -> str:
    """The text of the page."""
    examples = "\n\n".join(f"{title}:\n\n```sh\n{command}\n```" for title, command in EXAMPLES.items())
    reference = app.generate_docs(heading_level=2)
    return f"{HEAD}## Examples\n\n{examples}\n\n## Exit codes\n\n{EXIT_CODES}\n\n{reference.strip()}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
