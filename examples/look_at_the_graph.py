"""What becomes of a program: its graph as written, simplified, fused into kernels, and laid out in memory."""

from __future__ import annotations

import argparse
from pathlib import Path

import graphcore as gc
from graphcore import nn

STAGES = ("built", "simplified", "fused", "plan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="nothing to leave out here")
    parser.add_argument("--out", type=Path, default=Path("graph_diagrams"), help="folder for diagrams")
    options = parser.parse_args()

    x = gc.placeholder("float32", (32, 16), name="x")
    y = gc.placeholder("int64", (32,), name="y")
    with gc.name_scope("classifier"):
        logits = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))(x)
    loss = nn.functional.cross_entropy(logits, y)
    step = gc.optim.SGD(lr=0.1).minimize(loss)

    # One tensor, as a tree of what it is computed from.
    print("--- the loss")
    gc.dprint(loss)

    # The whole training step at each stage of compilation, as text and as pictures.
    options.out.mkdir(parents=True, exist_ok=True)
    with gc.Session(device=options.device) as sess:
        compiled = sess.compile([loss, step], {x: x.shape, y: y.shape})
        for stage in STAGES:
            print(f"\n--- {stage}\n{compiled.as_text(stage)}")
            for suffix in ("svg", "dot"):
                gc.dump([loss, step], options.out / f"{stage}.{suffix}", stage=stage, session=sess)
        gc.dump([loss, step], options.out / "all.html", session=sess)
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    print(f"\narena: {memory['arena_bytes']} bytes, at least {memory['lower_bound_bytes']} are live at once")
    print(f"launches: {cost['launches']}, {cost['flops']} flops, {cost['bytes_accessed']} bytes")
    print(f"diagrams are in {options.out}")


if __name__ == "__main__":
    main()
