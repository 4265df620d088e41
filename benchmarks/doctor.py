"""What the cascade doctor finds in a shipped cascade, as a record: `zoo doctor cascade` with its surroundings.

python -m benchmarks.doctor --data emoji-core-128.zip --sheet docs/images/doctor.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

import zoo
from benchmarks import record
from zoo.config.cards import read_card
from zoo.data.image_folder import ImageFolder
from zoo.evaluation.cascade_doctor import LEVELS, examine


def main() -> None:
    """Examine, print a line a stage, write the record and the sheet."""
    parser = argparse.ArgumentParser(description="The cascade doctor's findings as a record.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--pipeline", default="cascade-text2img", help="a pipeline's name or a config file")
    parser.add_argument("--split", default="test", help="whose captions are asked for")
    parser.add_argument("--count", type=int, default=256, help="captions")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS), help="augmentation levels to try")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a network call")
    parser.add_argument("--sheet", type=Path, help="write the sheet here")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()

    at_start = {key: said for key, said in record.code().items() if key != "zoo"}  # before the sheet changes a file
    pipe = zoo.build(options.pipeline)
    data = ImageFolder(path=options.data, split=options.split, size=pipe.stages[-1].size)
    card = read_card("emoji-evaluator")
    report = examine(
        pipe, data, extractor=zoo.load(card.name), extractor_name=card.name, extractor_sha256=card.sha256,
        count=options.count, seed=options.seed, levels=options.levels, batch_size=options.batch_size,
        progress=lambda what: print(what, file=sys.stderr),
    )  # fmt: skip
    for stage in report.stages:
        print(f"{stage.name}: fd drawn {stage.fd_generated}, from true {stage.fd_true}, lost {stage.lost:.4f}")
        for level in stage.sweep:
            print(f"  level {level.level:g}: PSNR {level.psnr:.2f}, fd {level.fd_true:.4f}, {level.fd_generated}")
    if options.sheet is not None:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(report.picture.permute(1, 2, 0).numpy()).save(options.sheet)
    if not options.no_record:
        made = record.make(
            f"doctor-{report.pipeline}",
            settings={
                "pipeline": report.pipeline, "config_sha256": pipe.record["config_sha256"],
                "data": Path(options.data).name, "split": options.split, "count": options.count, "seed": options.seed,
                "levels": options.levels,
            },
            values=report.to_dict(), weights={**pipe.record["weights"], card.name: card.sha256},
            threads=torch.get_num_threads(),
        )  # fmt: skip
        print(record.write(made | at_start))


if __name__ == "__main__":
    main()
