"""Run in a process of its own, `python draw_plainly.py JOBS OUT`: plain diffusers, never l2dm.

JOBS is a JSON list of {"name", "load", "base", "folder", "file", "calls", "readme"}; OUT becomes an
.npz of uint8 pictures (N, H, W, 3) per "name/call" and of text features per "name/call/text".
"""

import json
import os
import re
import sys
from pathlib import Path

import numpy
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

ADAPTER = "l2dm_line_b"  # "b" alone is a part of "lora_b": diffusers would warn of missing keys


def open_job(job):
    if job["load"] == "gated":
        pipe = DiffusionPipeline.from_pretrained(
            job["base"], custom_pipeline=job["folder"], trust_remote_code=True
        )
        assert pipe.load_gated(job["folder"]) == ("<toy>", "<toy2>")
        return pipe
    pipe = StableDiffusionPipeline.from_pretrained(job["base"])
    if job["load"] == "lora":
        pipe.load_lora_weights(job["folder"], weight_name=job["file"], adapter_name=ADAPTER)
    if job["load"] in ("lora", "merged"):
        files = sorted((Path(job["folder"]) / "embeddings").glob("*.safetensors"))
        pipe.load_textual_inversion([str(file) for file in files])
    return pipe


def draw(pipe, prompt, seeds, **options):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompt, generator=generators, output_type="pil", **options).images


def run_readme(folder, base):
    """The README's own program, in the export's folder, exactly as it stands there."""
    program = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S).group(1)
    os.chdir(folder)
    sys.argv = ["draw.py", base]
    exec(compile(program, "draw.py", "exec"), {"__name__": "__main__"})


def main(jobs, out):
    found = {}
    for job in json.loads(jobs.read_text()):
        pipe = open_job(job)
        pipe.set_progress_bar_config(disable=True)
        for name, call in job["calls"].items():
            pictures = draw(pipe, **call)
            found[f"{job['name']}/{name}"] = numpy.stack([numpy.array(p) for p in pictures])
            with torch.no_grad():
                states = pipe.encode_prompt(call["prompt"], "cpu", 1, False)[0]
            found[f"{job['name']}/{name}/text"] = states.numpy()
        if job["readme"]:
            run_readme(Path(job["folder"]), job["base"])
    assert not [name for name in sys.modules if name.partition(".")[0] == "l2dm"]
    numpy.savez(out, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
