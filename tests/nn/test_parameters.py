"""Parameters and buffers as PyTorch makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc

nn = gc.nn


class Net(nn.Module):
    def __init__(self) -> None:
        self.scale = nn.Parameter(np.array([2.0, 3.0], np.float32))
        self.frozen = nn.Parameter([1.0], requires_grad=False)
        self.drawn = nn.Parameter(gc.init.normal((2,)))
        self.made = nn.Parameter(gc.ones((2,)) * 5.0)
        self.mask = nn.Buffer([1.0, 0.0])
        self.cache = nn.Buffer([7.0, 7.0], persistent=False)
        self.register_buffer("seen", np.zeros(2, np.float32), persistent=False)
        self.many = nn.ParameterList([[1.0], gc.Variable([2.0], name="v")])
        self.named = nn.ParameterDict({"a": [3.0], "b": [4.0]})

    def forward(self, x: Any) -> Any:
        return (x * self.scale + self.mask + self.cache + self.seen + sum(self.many) + self.named["a"]) * self.made


SAVED = ["drawn", "frozen", "made", "many.0", "many.1", "mask", "named.a", "named.b", "scale"]


def test_parameters_and_buffers_of_a_module() -> None:
    net = Net()
    names = {name for name, _ in net.named_parameters()}
    assert names == {"scale", "drawn", "made", "many.0", "many.1", "named.a", "named.b"}
    assert {name for name, _ in net.named_buffers()} == {"frozen", "mask", "cache", "seen"}
    assert all(isinstance(p, nn.Parameter) for p in (*net.parameters(), nn.Linear(2, 2).weight))
    assert all(isinstance(b, nn.Buffer) and not isinstance(b, nn.Parameter) for b in net.buffers())
    assert not isinstance(gc.ones((2,)), (nn.Parameter, nn.Buffer))
    assert [v.name for v in net.many] == ["many.0", "many.1"] and len(net.many) == 2
    assert dict(net.named.items()).keys() == {"a", "b"} == set(net.named) and "a" in net.named


def test_what_is_not_persistent_is_in_no_checkpoint(sess: gc.Session, tmp_path: Path) -> None:
    net, x = Net(), gc.placeholder("float32", (2,))
    y = net(x)
    step = gc.optim.SGD(net.parameters(), lr=0.5).minimize(y.sum())
    assert sorted(net.state_dict()) == SAVED
    before = sess.run([y, step], {x: [1.0, 1.0]})[0]
    np.testing.assert_allclose(before, [(2 + 1 + 7 + 3 + 3) * 5.0, (3 + 7 + 3 + 3) * 5.0])
    assert sess.get_value(net.scale).tolist() == [-0.5, 0.5]
    assert sorted(sess.state_dict(net)) == SAVED and not {"cache", "seen"} & set(sess.state_dict())
    sess.save(tmp_path / "net", net)
    sess.set_value(net.cache, [0.0, 0.0])
    sess.set_value(net.scale, [0.0, 0.0])
    sess.restore(tmp_path / "net", module=net)
    assert sess.get_value(net.scale).tolist() == [-0.5, 0.5] and sess.get_value(net.cache).tolist() == [0, 0]
    with gc.Session(sess.device) as other:
        other.restore(tmp_path / "net")
        assert other.run(net.cache).tolist() == [7, 7]  # it lacks nothing


def test_containers_change() -> None:
    many, named = nn.ParameterList(), nn.ParameterDict([("a", [1.0])])
    many.append([1.0]).extend([[2.0], [3.0]])
    many[1] = [5.0]
    assert [v.initial.tolist() for v in many] == [[1], [5], [3]] and many[-1].name == "2"
    named["a"] = [2.0]
    named["keys_of"] = [3.0]
    del named["a"]
    assert list(named.keys()) == ["keys_of"] and named["keys_of"].trainable
    with pytest.raises(KeyError):
        named["a"]
    assert "'keys' is the name of another attribute" in message_of(gc.UsageError, lambda: named.update({"keys": [1.0]}))
    assert "takes parameters, got a Linear" in message_of(gc.UsageError, lambda: many.append(nn.Linear(1, 1)))
