"""Benchmark rendering: samples per second of each style, scaling over cores, comparison with pyrender and moderngl.

    python eval/speed/render.py                                      # three minutes
    python eval/speed/render.py --quick                              # half a minute
    python eval/speed/render.py --size 128 --supersample 1 --framing crop --out outputs/render.json

A sample is random coefficients, subject, camera, background and sensor. Every process renders its own seeds; runs with
one process and with ``--processes`` alternate round by round, so that other load affects all alike, and results are
medians over rounds. ``core_scaling`` is the rate of all processes over that of as many single ones; it is meaningful
only on an idle machine. CPU time per sample depends less on load.

pyrender and moderngl draw the same meshes (head, clothes, hair of random subjects and expressions) at the same size
with 4 samples per pixel and read the pixels back to numpy. Their job is smaller: one colour per part, one light, from
vertices and normals computed beforehand. `triangles` is our rasteriser doing that same job. Ratios are samples per
second over theirs, one process each, and on one core where they render in software: `…_ratio` of our whole samples
(photo style), `…_ratio_same_job` of `triangles`. They need the extra `bench` (pip install 'semanticface[bench]') and a
GL (apt-get install libegl1 libgl1-mesa-dri); where one is missing its ratios are null.

The goals are 80 samples per second of the photo style on 2 cores, and a core scaling of 0.8. The last line is one JSON
object: `samples_per_second`, `core_scaling`, `pyrender_ratio`, `moderngl_ratio` and the two of the same job.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numba as nb
import numpy as np

from semanticface.cli.scripts import ScriptParser
from semanticface.rendering import HELD_OUT_STYLE, STYLES, raster, render
from semanticface.rendering.camera import Camera, place_camera
from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.appearance import appearance_of
from semanticface.rendering.head.mesh import NORMAL, POSITION, build_mesh
from semanticface.rendering.head.rig import rig
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import write_json

Framing = Literal["portrait", "crop"]
PEERS = ("pyrender", "moderngl")
SAME_JOB = "triangles"
HEADS = 24
NEAR, FAR = 1.0, 60.0
# Row of ``Appearance.colours`` for each part of a mesh.
PART_COLOURS = np.array([ch.SKIN, ch.SCLERA, ch.SCLERA, ch.TEETH, ch.TEETH, ch.TONGUE, ch.LASH, ch.CLOTH, ch.HAIR])
INSTALL_HINTS = {
    "pyrender": "pip install 'semanticface[bench]'; apt-get install libegl1 libgl1-mesa-dri (or libosmesa6)",
    "moderngl": "pip install 'semanticface[bench]'; apt-get install libegl1 libgl1-mesa-dri",
}

Head = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Camera]


def sample(style: str, seed: int, size: int, supersample: int, framing: Framing) -> None:
    """Render one random sample."""
    c = sample_coefficients(np.random.default_rng([seed, 61]))
    render(c, style=style, subject=seed, shot=seed, size=size, supersample=supersample, framing=framing)


def heads(count: int, size: int, framing: Framing) -> list[Head]:
    """Meshes for the peers: (vertices, normals, colours, each float32[V, 3], triangles int32[T, 3], camera)."""
    out = []
    for seed in range(count):
        identity = rig().identity(seed)
        paint = appearance_of(seed, identity)
        vertices = rig().vertices(sample_coefficients(np.random.default_rng([seed, 61])), identity)
        mesh = build_mesh(vertices, identity, paint.hair, paint.hair_seed)
        camera, _ = place_camera(identity.vertices[rig().box_ids], seed, size, framing)
        colours = np.zeros((len(mesh.attributes), 3), np.float32)
        colours[mesh.triangles] = paint.colours[PART_COLOURS[mesh.part]][:, None] ** (1 / 2.2)
        positions, normal = (np.ascontiguousarray(mesh.attributes[:, rows]) for rows in (POSITION, NORMAL))
        out.append((positions, normal, colours, mesh.triangles, camera))
    return out


def triangles_painter(size: int) -> tuple[Callable[[Head], np.ndarray], str]:
    """Draw a head with our rasteriser as the peers do: four samples per pixel, vertex colours, one light."""

    def paint(head: Head) -> np.ndarray:
        positions, normal, colours, triangles, camera = head
        screen = camera.scaled(2).project(positions)
        two_sided = np.ones(len(triangles), bool)
        triangle_ids, w1, w2, _ = raster.visibility(screen, triangles, two_sided, 2 * size, 2 * size, "benchmark")
        return _lambert(triangle_ids, w1, w2, triangles, normal, colours, camera.rotation[2].copy(), size)

    return paint, "numba"


@nb.njit(nogil=True, fastmath=True, error_model="numpy")  # not cached: the module name differs between processes
def _lambert(triangle_ids, w1, w2, triangles, normal, colours, light, size):  # type: ignore[no-untyped-def]
    picture = np.empty((size, size, 3), np.uint8)
    for y in range(size):
        for x in range(size):
            r = g = b = np.float32(0)
            for k in range(4):
                i, j = 2 * y + (k >> 1), 2 * x + (k & 1)
                t = triangle_ids[i, j]
                if t < 0:
                    r, g, b = r + np.float32(0.6), g + np.float32(0.6), b + np.float32(0.6)
                    continue
                p, q, s = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                b1, b2 = w1[i, j], w2[i, j]
                b0 = np.float32(1) - b1 - b2
                nx = b0 * normal[p, 0] + b1 * normal[q, 0] + b2 * normal[s, 0]
                ny = b0 * normal[p, 1] + b1 * normal[q, 1] + b2 * normal[s, 1]
                nz = b0 * normal[p, 2] + b1 * normal[q, 2] + b2 * normal[s, 2]
                facing = (nx * light[0] + ny * light[1] + nz * light[2]) / np.sqrt(nx * nx + ny * ny + nz * nz)
                shade = np.float32(0.35) + np.float32(0.65) * max(facing, np.float32(0))
                r += shade * (b0 * colours[p, 0] + b1 * colours[q, 0] + b2 * colours[s, 0])
                g += shade * (b0 * colours[p, 1] + b1 * colours[q, 1] + b2 * colours[s, 1])
                b += shade * (b0 * colours[p, 2] + b1 * colours[q, 2] + b2 * colours[s, 2])
            picture[y, x, 0] = np.uint8(min(r * np.float32(63.75), np.float32(255)))
            picture[y, x, 1] = np.uint8(min(g * np.float32(63.75), np.float32(255)))
            picture[y, x, 2] = np.uint8(min(b * np.float32(63.75), np.float32(255)))
    return picture


def moderngl_painter(size: int) -> tuple[Callable[[Head], np.ndarray], str]:
    """Draw a head with moderngl: four samples per pixel, vertex colours, one light; and the device's name."""
    import moderngl

    context = moderngl.create_standalone_context(backend="egl")
    program = context.program(
        vertex_shader="""
            #version 330
            uniform mat4 view;
            in vec3 place, normal, colour;
            out vec3 n, c;
            void main() { gl_Position = view * vec4(place, 1.0); n = normal; c = colour; }
        """,
        fragment_shader="""
            #version 330
            uniform vec3 light;
            in vec3 n, c;
            out vec4 pixel;
            void main() { pixel = vec4(c * (0.35 + 0.65 * max(dot(normalize(n), light), 0.0)), 1.0); }
        """,
    )
    multisampled = context.framebuffer(
        [context.renderbuffer((size, size), samples=4)], context.depth_renderbuffer((size, size), samples=4)
    )
    resolved = context.framebuffer([context.renderbuffer((size, size))])
    points, corners = context.buffer(reserve=1 << 20, dynamic=True), context.buffer(reserve=1 << 20, dynamic=True)
    array = context.vertex_array(program, [(points, "3f 3f 3f", "place", "normal", "colour")], corners)
    context.enable(moderngl.DEPTH_TEST)

    def paint(head: Head) -> np.ndarray:
        positions, normal, colours, triangles, camera = head
        points.orphan()
        corners.orphan()
        points.write(np.concatenate([positions, normal, colours], 1).tobytes())
        corners.write(triangles.tobytes())
        program["view"].write(clip_matrix(camera, size).T.astype(np.float32).tobytes())
        program["light"].value = tuple(float(v) for v in camera.rotation[2])
        multisampled.use()
        multisampled.clear(0.6, 0.6, 0.6, 1.0)
        array.render(vertices=triangles.size)
        context.copy_framebuffer(resolved, multisampled)
        return np.frombuffer(resolved.read(components=3), np.uint8).reshape(size, size, 3)[::-1]

    return paint, str(context.info["GL_RENDERER"])


def clip_matrix(camera: Camera, size: int) -> np.ndarray:
    """The camera for OpenGL, float64[4, 4]: head space to clip space."""
    across, down = (2 * c / size for c in camera.centre)
    zoom = 2 * camera.focal / size
    projection = np.array([[zoom, 0, across - 1, 0], [0, zoom, 1 - down, 0],
                     [0, 0, (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)], [0, 0, 1, 0]])  # fmt: skip
    pose = np.eye(4)
    pose[:3, :3] = camera.rotation
    depth = np.diag([1.0, 1.0, -1.0, 1.0])
    depth[2, 3] = camera.distance
    return projection @ depth @ pose


def pyrender_painter(size: int) -> tuple[Callable[[Head], np.ndarray], str]:
    """Draw a head with pyrender: four samples per pixel, vertex colours, one light; and the device's name."""
    import pyrender
    from OpenGL.GL import GL_RENDERER, glGetString

    renderer = pyrender.OffscreenRenderer(size, size)
    material = pyrender.MetallicRoughnessMaterial(metallicFactor=0.0, roughnessFactor=0.8, doubleSided=True)

    def paint(head: Head) -> np.ndarray:
        positions, normal, colours, triangles, camera = head
        opaque = np.concatenate([colours, np.ones((len(colours), 1), np.float32)], 1)
        shape = pyrender.Primitive(
            positions, normals=normal, color_0=opaque, indices=triangles, material=material, mode=4
        )
        head_pose, camera_pose = np.eye(4), np.eye(4)
        head_pose[:3, :3], camera_pose[2, 3] = camera.rotation, camera.distance
        scene = pyrender.Scene(ambient_light=[0.3, 0.3, 0.3], bg_color=[0.6, 0.6, 0.6, 1.0])
        scene.add(pyrender.Mesh([shape]), pose=head_pose)
        scene.add(pyrender.IntrinsicsCamera(camera.focal, camera.focal, *camera.centre, NEAR, FAR), pose=camera_pose)
        scene.add(pyrender.DirectionalLight(intensity=3.0), pose=camera_pose)
        return renderer.render(scene)[0]

    paint(heads(1, size, "portrait")[0])
    renderer._platform.make_current()
    return paint, glGetString(GL_RENDERER).decode()


PAINTERS = {"pyrender": pyrender_painter, "moderngl": moderngl_painter, SAME_JOB: triangles_painter}


def serve(pipe: Connection, kind: str, options: argparse.Namespace) -> None:
    """Worker process: answer every (style, first seed, count) with (start, end, CPU seconds)."""
    if kind in PAINTERS:
        try:
            paint, device = PAINTERS[kind](options.size)
        except Exception as error:  # without a GL these raise many error types, some of their own
            pipe.send(f"missing: {type(error).__name__}: {error}")
            return
        work = heads(HEADS, options.size, options.framing)
        for head in work:
            paint(head)
    else:
        device = "numba"
        for style in (*STYLES, HELD_OUT_STYLE):
            sample(style, 10**6, options.size, options.supersample, options.framing)
    pipe.send(device)
    while (job := pipe.recv()) is not None:
        style, first, count = job
        start, cpu = time.time(), time.process_time()
        for seed in range(first, first + count):
            if kind in PAINTERS:
                paint(work[seed % HEADS])
            else:
                sample(style, seed, options.size, options.supersample, options.framing)
        pipe.send((start, time.time(), time.process_time() - cpu))


class Worker:
    """A worker process on one core.

    Attributes:
        device: what it renders with; begins with ``missing`` if it cannot.
    """

    def __init__(self, kind: str, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        # Keep Mesa's software renderer to one core.
        os.environ |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
        self.process = context.Process(target=serve, args=(other, kind, options), daemon=True)
        self.process.start()
        other.close()

    @cached_property
    def device(self) -> str:
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            return "missing: the process ended unexpectedly"

    def request(self, style: str, first: int, count: int) -> None:
        self.pipe.send((style, first, count))

    def times(self) -> tuple[float, float, float]:
        return self._answer()

    def stop(self) -> None:
        if not self.device.startswith("missing"):
            self.pipe.send(None)
        self.process.join()


def start_peer(kind: str, options: argparse.Namespace) -> Worker:
    """A peer on a GPU or EGL's software renderer, or pyrender on OSMesa."""
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    worker = Worker(kind, options)
    if kind == "pyrender" and worker.device.startswith("missing"):
        os.environ["PYOPENGL_PLATFORM"] = "osmesa"
        other = Worker(kind, options)
        worker = worker if other.device.startswith("missing") else other
    return worker


def rate(workers: list[Worker], style: str, first: int, count: int) -> tuple[float, float]:
    """(samples per second of all workers together, CPU milliseconds per sample)."""
    for k, worker in enumerate(workers):
        worker.request(style, first + k * count, count)
    starts, ends, cpu = zip(*(worker.times() for worker in workers), strict=True)
    total = len(workers) * count
    return total / (max(ends) - min(starts)), 1000 * sum(cpu) / total


def measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
    """Rows of the table, and the summary."""
    own = [Worker("ours", options) for _ in range(options.processes)]
    peers = {kind: start_peer(kind, options) for kind in PEERS} | {SAME_JOB: Worker(SAME_JOB, options)}
    for kind, worker in (*(("ours", worker) for worker in own), *peers.items()):
        if worker.device.startswith("missing"):
            print(f"{kind} is skipped ({worker.device}). To install it: {INSTALL_HINTS.get(kind, 'report this')}")
    groups = {1: own[:1], options.processes: own}
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
    first = 1
    for _ in range(options.rounds):
        for style in (*STYLES, HELD_OUT_STYLE):
            for number, group in groups.items():
                rates.setdefault((style, number), []).append(rate(group, style, first, options.count))
                first += options.processes * options.count
            if style == "photo":
                for kind, worker in peers.items():
                    if not worker.device.startswith("missing"):
                        rates.setdefault((kind, 1), []).append(rate([worker], style, first, options.count))
    for worker in (*own, *peers.values()):
        worker.stop()
    rows = [
        {
            "what": what,
            "processes": number,
            "samples_per_second": round(statistics.median(r for r, _ in summary), 1),
            "cpu_ms_per_sample": round(statistics.median(c for _, c in summary), 1),
            "device": peers[what].device if what in peers else own[0].device,
        }
        for (what, number), summary in rates.items()
    ]

    def median_ratio(what: str, number: int, other: str, under: int) -> float | None:
        """Median over rounds of the ratio of two rates of the same round."""
        if (what, number) not in rates or (other, under) not in rates:
            return None
        pairs = zip(rates[what, number], rates[other, under], strict=True)
        return round(statistics.median(a / b for (a, _), (b, _) in pairs), 3)

    scaling = median_ratio("photo", options.processes, "photo", 1)
    summary = {
        "samples_per_second": round(statistics.median(r for r, _ in rates["photo", options.processes]), 1),
        "core_scaling": None if scaling is None else round(scaling / options.processes, 3),
        "pyrender_ratio": median_ratio("photo", 1, "pyrender", 1),
        "moderngl_ratio": median_ratio("photo", 1, "moderngl", 1),
        "pyrender_ratio_same_job": median_ratio(SAME_JOB, 1, "pyrender", 1),
        "moderngl_ratio_same_job": median_ratio(SAME_JOB, 1, "moderngl", 1),
    }
    return rows, summary


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels (default %(default)s)")
    parser.add_argument(
        "--supersample", type=int, default=2, help="our samples per pixel along each side (default %(default)s)"
    )
    parser.add_argument("--framing", choices=("portrait", "crop"), default="portrait", help="default %(default)s")
    parser.add_argument("--count", type=int, help="samples per process and round (default 150, quick 30)")
    parser.add_argument("--rounds", type=int, help="number of rounds (default 7, quick 3)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="number of processes (default: all cores)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples: half a minute")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/render.json"), help="JSON file")
    options = parser.parse_args()
    options.count = options.count or (30 if options.quick else 150)
    options.rounds = options.rounds or (3 if options.quick else 7)
    if min(options.count, options.rounds, options.processes) < 1:
        parser.error("--count, --rounds and --processes are 1 or more")
    rows, summary = measure(options)
    print(f"{'what':10}{'processes':>10}{'samples/s':>12}{'CPU ms/sample':>16}  drawn by")
    for row in rows:
        print(
            f"{row['what']:10}{row['processes']:>10}{row['samples_per_second']:>12}{row['cpu_ms_per_sample']:>16}  "
            f"{row['device']}"
        )
    print("photo, toon, drawn, imp: whole samples. Others: given triangles, one colour per part, one light.")
    settings = {k: getattr(options, k) for k in ("size", "supersample", "framing", "count", "rounds", "processes")}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    write_json(options.out, {"settings": settings, "machine": machine, "results": rows, **summary})
    print(options.out)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
