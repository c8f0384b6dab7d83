"""A dense network that equal runs share is taken as it was written, or trained again."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lumos.suite import baseline
from lumos.suite.training.trained import Trained


def another_bit(content: bytes, model: nn.Linear) -> bytes:
    """The file with another last bit in the middle of its weights."""
    weights = model.weight.detach().numpy().tobytes()
    at = content.index(weights) + len(weights) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("older", [False, True], ids=["", "of an older version"])
def test_another_bit_is_seen(tmp_path, caplog, older):
    caplog.set_level("INFO")
    workload: Any = SimpleNamespace(model=lambda: nn.Linear(64, 64))
    model = workload.model()
    baseline._write(tmp_path, Trained(model, 0.5, 1.0, 10, []))
    facts, weights = (tmp_path / name for name in reversed(baseline.FILES))
    if older:
        known = json.loads(facts.read_text())
        del known["sha256"]
        facts.write_text(json.dumps(known))
    found = baseline._read(tmp_path, workload)
    assert found is not None
    assert found[0] == {"valid_score": 0.5, "seconds": 1.0, "steps": 10, "curve": []}
    assert torch.equal(found[1]["weight"], model.weight)
    if not older:
        weights.write_bytes(another_bit(weights.read_bytes(), model))
        assert baseline._read(tmp_path, workload) is None
        assert caplog.messages == [f"dense: {tmp_path} cannot be read (its checksum does not match); training it again"]
