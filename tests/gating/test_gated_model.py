"""Gates as a training meets them: code that runs again in backward, other methods, threads, copies, compilers."""

import copy
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

import lumos
from lumos.gating.gated_model import GatedModel
from lumos.gating.layers import FIRST_ROWS


class Net(nn.Module):
    """Two hidden layers, a scale that the model itself reads, and methods beside ``forward``."""

    def __init__(self, again="never", width=16):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.again = again

    def body(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x)))) * self.scale

    def forward(self, x, *, gain: float = 1.0):
        if self.again == "never" or not self.training:
            return gain * self.head(self.body(x))
        if self.again == "adjoint":
            return gain * self.head(Adjoint.apply(self.body, x, *self.parameters()))
        return gain * self.head(checkpoint(self.body, x, use_reentrant=self.again == "reentrant"))

    def encode(self, x):
        return self.body(x)


class Adjoint(torch.autograd.Function):
    """As solvers of differential equations do: forward keeps nothing, backward runs the code again and sums up."""

    @staticmethod
    def forward(ctx, code, x, *weights):
        ctx.code, ctx.weights = code, weights
        ctx.save_for_backward(x)
        with torch.no_grad():
            return code(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.backward(ctx.code(x), grad)
        return None, x.grad, *(None for _ in ctx.weights)


def gated_net(again="never", seed=0, **options) -> GatedModel:
    torch.manual_seed(seed)
    gated = lumos.gate(Net(again, **options).double(), torch.randn(100, 6).double())
    gated.gates.log_alpha.data.uniform_(-1, 1)
    return gated.double()


def gradients(gated, x):
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    gated.train()(x).square().sum().backward()
    return {"x": x.grad} | {name: p.grad for name, p in gated.named_parameters()}


# ---- code that runs again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 100])
@pytest.mark.parametrize("again", ["reentrant", "not reentrant", "adjoint"])
def test_gradients_where_backward_runs_forward_again(again, rows):
    x = torch.randn(rows, 6, dtype=torch.float64)
    expected, found = gradients(gated_net(), x), gradients(gated_net(again), x)
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@given(seed=st.integers(0, 2**20), rows=st.integers(1, 80), calls=st.integers(1, 3), reentrant=st.booleans())
@settings(max_examples=25, deadline=None)
def test_accumulated_gradients_with_checkpointing_are_those_without(seed, rows, calls, reentrant):
    def accumulated(again):
        gated = gated_net(again, seed).train()
        torch.manual_seed(seed)
        for _ in range(calls):
            gated(torch.randn(rows, 6, dtype=torch.float64).requires_grad_()).square().sum().backward()
        return [p.grad for p in gated.parameters()]

    again = "reentrant" if reentrant else "not reentrant"
    for a, b in zip(accumulated("never"), accumulated(again), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_checkpointing_of_a_vision_transformer():
    timm = pytest.importorskip("timm")

    def of(checkpointing):
        torch.manual_seed(0)
        vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3)
        gated = lumos.gate(vit.double(), torch.randn(2, 3, 32, 32).double()).double()
        gated.set_grad_checkpointing(checkpointing)
        torch.manual_seed(1)
        gated.train()(torch.randn(3, 3, 32, 32).double()).square().sum().backward()
        return {name: p.grad for name, p in gated.named_parameters()}

    plain, again = of(False), of(True)
    for name, grad in plain.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-11, atol=1e-12)


def test_forces_are_differentiated_a_second_time():
    """An energy's gradient by its input enters the loss: every gate has the gradient that finite differences give."""
    gated = gated_net(width=4).eval()
    x = torch.randn(3, 6, dtype=torch.float64)

    def loss():
        at = x.clone().requires_grad_()
        (force,) = torch.autograd.grad(gated(at).sum(), at, create_graph=True)
        return force.square().sum()

    loss().backward()
    log_alpha, step = gated.gates.log_alpha, 1e-6
    for i in range(0, len(log_alpha), 3):
        with torch.no_grad():
            log_alpha[i] += step
            up = float(loss_value(loss))
            log_alpha[i] -= 2 * step
            down = float(loss_value(loss))
            log_alpha[i] += step
        assert float(log_alpha.grad[i]) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)


def loss_value(loss):
    with torch.enable_grad():
        return loss().detach()


# ---- one network a step ---------------------------------------------------------------------------------------------


def test_calls_between_two_steps_see_one_sample_and_a_step_draws_anew():
    gated = gated_net().train()
    optimizer = torch.optim.SGD(gated.parameters(), lr=1e-3)
    x = torch.randn(5, 6, dtype=torch.float64)
    first = gated(x)
    assert torch.equal(gated(x), first)
    assert torch.equal(gated.head(gated.encode(x)), first)
    first.sum().backward()
    optimizer.step()
    noise = gated.gates.noise.clone()
    gated(x)
    assert not torch.equal(gated.gates.noise, noise)


@pytest.mark.parametrize("trained", ["weights", "gates"])
def test_a_step_of_weights_or_of_gates_alone_draws_anew(trained):
    gated = gated_net().train()
    parameters = list(gated.model.parameters()) if trained == "weights" else [gated.gates.log_alpha]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    x, noise = torch.randn(5, 6, dtype=torch.float64), set()
    for _ in range(4):
        optimizer.zero_grad()
        gated(x).sum().backward()
        optimizer.step()
        noise.add(float(gated.gates.noise[0]))
    assert len(noise) == 4


def test_resample_draws_anew_without_a_step():
    gated = gated_net().train()
    x = torch.randn(5, 6, dtype=torch.float64)
    first = gated(x)
    gated.resample()
    assert not torch.equal(gated(x), first)


def test_test_time_gates_follow_log_alpha_however_it_is_written():
    gated, x = gated_net().eval(), torch.randn(5, 6, dtype=torch.float64)
    before = gated(x)
    gated.gates.log_alpha.data[3:9] = -8.0
    assert not torch.equal(gated(x), before)
    torch.testing.assert_close(gated(x), lumos.compact(gated)(x))


@pytest.mark.parametrize("rows", [2, 500])
def test_multiplying_inputs_or_weights_is_the_same_function(rows):
    gated = gated_net(width=40).eval()
    x = torch.randn(rows, 6, dtype=torch.float64)
    with gated.without_gates():
        expected = torch.func.functional_call(gated.model, gated.effective_parameters(), (x,))
    torch.testing.assert_close(gated(x), expected)


@pytest.mark.parametrize("rows", [1, FIRST_ROWS - 1, FIRST_ROWS, 300])
def test_the_smaller_of_weight_and_input_is_multiplied(rows):
    """The layer that reads the model's input has its weight multiplied from fewer rows on than the others."""
    gated = gated_net(width=200).train()
    shapes = multiplied_shapes(gated, torch.randn(rows, 6, dtype=torch.float64))
    assert ((200, 6) in shapes) == (rows >= FIRST_ROWS)
    assert ((200, 200) in shapes) == (rows >= 200)


def multiplied_shapes(gated, x):
    class Products(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func in (torch.Tensor.mul, torch.Tensor.__mul__, torch.mul):
                found.append(tuple(out.shape))
            return out

    found = []
    with Products():
        gated(x)
    return found


# ---- as the user's model --------------------------------------------------------------------------------------------


def test_methods_and_attributes_are_those_of_the_model():
    gated, x = gated_net().eval(), torch.randn(5, 6, dtype=torch.float64)
    small = lumos.compact(gated)
    torch.testing.assert_close(gated.head(gated.encode(x)), gated(x))
    torch.testing.assert_close(gated.head(gated.encode(x)), small(x))
    assert gated.again == "never"
    assert list(inspect.signature(gated).parameters) == ["x", "gain"]
    torch.testing.assert_close(gated(x, gain=2.0), 2 * gated(x))
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'decode'"):
        gated.decode(x)


def test_a_weight_that_is_read_anywhere_is_read_gated():
    """A penalty on a weight, a tied layer, another module's weight: one function at every batch size."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(20, 16), nn.Linear(16, 8)

        def forward(self, x):
            z = torch.tanh(self.two(torch.tanh(self.one(x))))
            return F.linear(torch.tanh(F.linear(z, self.two.weight.t())), self.one.weight.t()), self.two.weight.sum(1)

    torch.manual_seed(0)
    x = torch.randn(256, 20).double()
    gated = lumos.gate(Tied().double(), x[:8]).double().eval()
    gated.gates.log_alpha.data.uniform_(-0.8, 1.5)
    small = lumos.compact(gated)
    for rows in (1, 4, 256):
        for a, b in zip(gated(x[:rows]), small(x[:rows]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_two_gated_models_of_one_model():
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(4, 6).double()
    before = {path: (type(m), set(vars(m))) for path, m in model.named_modules()}
    first, second = lumos.gate(model, x).double().eval(), lumos.gate(model, x).double().eval()
    first.gates.log_alpha.data[: first.structure.groups[0].size // 2] = -8.0
    assert not torch.allclose(first(x), second(x))
    assert first.structure.groups == second.structure.groups
    assert {path: (type(m), set(vars(m))) for path, m in model.named_modules()} == before
    assert all(a is b for a, b in zip(model.parameters(), second.model.parameters(), strict=True))


def test_copies_and_pickles_are_gated_models_of_their_own():
    gated, x = gated_net().train(), torch.randn(5, 6, dtype=torch.float64)
    gated(x).sum().backward()
    gated.eval()
    for other in (copy.deepcopy(gated), pickle.loads(pickle.dumps(gated))):
        assert torch.equal(other(x), gated(x))
        other.gates.log_alpha.data[:3] = -8.0
        assert not torch.equal(other(x), gated(x))
        assert list(other.state_dict()) == list(gated.state_dict())


def test_names_of_the_state_are_the_models_own():
    gated = gated_net()
    assert [n for n, _ in gated.named_parameters()] == [
        *(f"model.{n}" for n, _ in Net().named_parameters()), "gates.log_alpha",
    ]  # fmt: skip
    other = gated_net(seed=5)
    other.load_state_dict(gated.state_dict())
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.equal(other.eval()(x), gated.eval()(x))


def test_parameters_given_for_one_call():
    gated, x = gated_net().eval(), torch.randn(5, 6, dtype=torch.float64)
    doubled = {name: 2 * p if name == "model.head.weight" else p for name, p in gated.named_parameters()}
    bias = gated.model.head.bias
    torch.testing.assert_close(torch.func.functional_call(gated, doubled, (x,)) - bias, 2 * (gated(x) - bias))


def test_replicas_of_a_model_read_their_own_weights_through_the_gates():
    """As DataParallel makes them: copies of a module's dict, with plain tensors in the place of parameters."""
    gated, x = gated_net().eval(), torch.randn(5, 6, dtype=torch.float64)
    layer = gated.model.head
    replica = layer._replicate_for_data_parallel()
    for name, p in layer._parameters.items():
        setattr(replica, name, 2 * p)
    torch.testing.assert_close(replica(x @ torch.randn(6, 16).double()).shape, torch.Size([5, 2]))
    h = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(replica(h), 2 * layer(h))


def test_threads_see_the_gates_of_the_step():
    gated = gated_net().train()
    x = torch.randn(64, 6, dtype=torch.float64)
    expected, found = gated(x), []
    threads = [threading.Thread(target=lambda: found.extend(gated(x) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(torch.equal(y, expected) for y in found)


def test_mixed_precision():
    torch.manual_seed(0)
    gated = lumos.gate(Net(), torch.randn(8, 6)).train()
    gated.gates.log_alpha.data.uniform_(-1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = gated(torch.randn(8, 6))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert bool(gated.gates.log_alpha.grad.any())


@pytest.mark.slow
@pytest.mark.parametrize("program", ["compiled", "sharded"])
def test_in_a_process_of_its_own(program):
    command = [sys.executable, "-m", f"tests.gating.{program}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip().endswith("same"), done.stderr


def test_gates_can_be_shared():
    gated = gated_net()
    other = GatedModel(copy.deepcopy(gated.model), gated.structure, gated.gates.settings, gated.gates)
    assert other.gates is gated.gates
    x = torch.randn(3, 6, dtype=torch.float64)
    gated.gates.log_alpha.data[:4] = -8.0
    assert torch.equal(other.eval()(x), gated.eval()(x))


def test_closures_over_a_model_are_those_of_its_copy():
    """A lambda that calls a layer of its own module, kept by the module: it reads the gates, and is cut."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(6, 16), nn.Linear(16, 2)
            self.tail = lambda h: self.head(h)
            self.register_forward_hook(lambda module, inputs, out: out + self.head.bias.sum())

        def forward(self, x):
            return self.tail(torch.relu(self.first(x)))

    torch.manual_seed(0)
    x = torch.randn(8, 6)
    gated = lumos.gate(Hidden(), x)
    assert [g.size for g in gated.structure.groups] == [6, 16]
    for group in gated.structure.groups:
        gated.gates.log_alpha.data[group.start : group.start + group.size // 2] = -8.0
    lumos.verify(gated.eval(), (x,))


def test_weights_that_are_read_past_the_gates_are_held():
    """A model that hands its own parameters to functional_call reads them where no gate can multiply them."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, x):
            weights = dict(self.inner.named_parameters())
            h = torch.relu(self.first(x))
            return self.head(torch.relu(torch.func.functional_call(self.inner, weights, (h,)))) + weights["bias"].sum()

    torch.manual_seed(0)
    x = torch.randn(8, 6)
    gated = lumos.gate(Functional(), x)
    for group in gated.structure.groups:
        gated.gates.log_alpha.data[group.start : group.start + group.size // 2] = -8.0
    lumos.verify(gated.eval(), (x,))


class _Registered(nn.Module):
    """A class that keeps account of those derived from it, and that makes new ones of its own kind in ``forward``."""

    kinds: ClassVar[list[type]] = []

    def __init_subclass__(cls, name: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        _Registered.kinds.append(cls)


class _Factors(_Registered, name="factors"):
    def __init__(self, factors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.count = 0
        for factor in factors:
            key = f"factor_{self.count}"
            register = self.register_parameter if isinstance(factor, nn.Parameter) else self.register_buffer
            register(key, factor)
            self.count += 1

    def halves(self) -> "_Factors":
        return self.__class__([getattr(self, f"factor_{i}")[:, :4] for i in range(self.count)])

    def forward(self, x):
        part = self.halves()
        return torch.relu(x[:, :4] @ part.factor_0.t()) @ self.factor_1.t()


def test_classes_that_ask_for_arguments_and_make_others_of_their_kind():
    torch.manual_seed(0)
    factors = _Factors([nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(3, 6))])
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), factors)
    gated = lumos.gate(model, torch.randn(8, 4))
    assert _Registered.kinds == [_Factors]  # none of ours
    assert type(gated.model[2].halves()) is _Factors
    assert copy.deepcopy(gated)(torch.ones(2, 4)).shape == (2, 3)
    with torch.no_grad():
        gated.gates.log_alpha[2:7] = -9.0
    assert lumos.verify(gated, torch.randn(8, 4)).max_rel_diff < 1e-10


class _WithHook(nn.Module):
    """Keeps the handle of a hook that it put on a part of itself, as libraries do for checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.handles = [self.first.register_forward_hook(lambda _module, _inputs, output: output + 1)]

    def forward(self, x):
        return self.last(self.first(x).relu())


@pytest.mark.parametrize("copied", [False, True])
def test_handles_of_hooks_are_copied_with_the_hooks(copied):
    model, x = _WithHook(), torch.randn(8, 4)
    model = copy.deepcopy(model) if copied else model
    gated = lumos.gate(model, x)
    lumos.verify(gated, x)
    small = lumos.compact(gated.eval())
    want = small(x)
    copy.deepcopy(gated).model.handles[0].remove()
    assert torch.allclose(gated(x), want)
    assert len(model.first._forward_hooks) == 1
