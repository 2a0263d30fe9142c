# SPDX-License-Identifier: Apache-2.0
"""A worker's script: short segments of the bare loop and of joint inference in turn, over the same frames."""

import json
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import overload

from nereid_worker import Answer, JointInference
from nereid_worker.litert import back_end

service = JointInference.from_task()
segment, rounds = int(service.parameters["segment"]), int(service.parameters["rounds"])
frames = [path.read_bytes() for path in sorted(Path(service.parameters["frames"]).glob("*.jpg"))]
model = service.classifier
bare = back_end()(model_content=model.path.read_bytes(), num_threads=1)
bare.allocate_tensors()
given, answer = bare.get_input_details()[0]["index"], bare.get_output_details()[0]["index"]


class Endless(Sequence[bytes]):
    """The frames over and over, as a sequence: read in the caller's thread, as files are."""

    def __len__(self) -> int:
        """Return more than anybody reads."""
        return 1 << 40

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "Endless": ...
    def __getitem__(self, index: int | slice) -> "bytes | Endless":
        """Return one frame."""
        assert isinstance(index, int)
        return frames[index % len(frames)]


class Verdicts:
    """Counts samples when the edge has answered them."""

    seen = hard = 0

    def __call__(self, one: Answer) -> None:
        """Count one."""
        self.seen += 1
        self.hard += one.is_hard


verdicts = Verdicts()
stream, source = service.stream(Endless(), on_edge=verdicts), cycle(frames)


def joint_segment() -> None:
    """Take answers until as many samples as a segment has were seen."""
    end = verdicts.seen + segment
    while verdicts.seen < end:
        next(stream)


def bare_segment() -> None:
    """Preprocess (with the decoder's buffer kept, as the SDK does), run, take the best class."""
    for frame in islice(source, segment):
        bare.set_tensor(given, model.preprocessor.one(frame))
        bare.invoke()
        bare.get_tensor(answer)[0].argmax()


def timed(work: Callable[[], None]) -> tuple[float, float, float]:
    """Return a segment's wall time, CPU time of all threads of this process, and of this one alone."""
    began, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu, time.thread_time() - own


pairs = []
for number in range(-2, rounds):
    if number % 2:
        joint, alone = timed(joint_segment), timed(bare_segment)
    else:
        alone, joint = timed(bare_segment), timed(joint_segment)
    if number >= 0:
        pairs.append({
            "bare_s": alone[0], "bare_cpu_s": alone[1], "bare_own_s": alone[2],
            "joint_s": joint[0], "joint_cpu_s": joint[1], "joint_own_s": joint[2],
        })  # fmt: skip
rss_kb = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
out = Path(service.parameters["out"])
out.with_suffix(".part").write_text(
    json.dumps({"pairs": pairs, "seen": verdicts.seen, "hard": verdicts.hard, "rss_mb": int(rss_kb) / 1024})
)
out.with_suffix(".part").replace(out)
stream.close()
