"""Models that differentiate in their own forward: potentials with forces, Hamiltonian networks, heat equations."""

import pytest
import torch
from torch import Tensor, nn

import lumos
from lumos.tracing.trace_structure import trace_structure
from tests.structures import Snapshot
from tests.tracing.test_forms_of_attention import assert_exact, hidden


class Energy(nn.Module):
    """The energy of atoms in pairs, from their distances."""

    def __init__(self, how: str = "grad") -> None:
        super().__init__()
        self.how = how
        self.radial = nn.Sequential(nn.Linear(4, 12), nn.SiLU(), nn.Linear(12, 8), nn.SiLU())
        self.atom = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 1))

    def energy(self, pos: Tensor) -> Tensor:
        apart = (pos[:, None] - pos[None]).square().sum(-1) + torch.eye(len(pos), dtype=pos.dtype)
        basis = torch.exp(-apart.unsqueeze(-1) * torch.tensor([0.1, 0.3, 1.0, 3.0], dtype=pos.dtype))
        return self.atom(self.radial(basis).sum(1))

    def forward(self, pos: Tensor) -> tuple[Tensor, Tensor]:
        if self.how == "enable_grad":
            with torch.enable_grad():
                pos = pos.detach().requires_grad_()
                energy = self.energy(pos)
                return energy, -torch.autograd.grad(energy.sum(), pos, create_graph=True)[0]
        pos = pos.detach().requires_grad_()
        energy = self.energy(pos)
        if self.how == "backward":
            energy.sum().backward()
            assert pos.grad is not None
            return energy, -pos.grad
        ones = torch.ones_like(energy)
        return energy, -torch.autograd.grad([energy], [pos], [ones], create_graph=True, retain_graph=True)[0]


class Hamiltonian(nn.Module):
    """The derivatives of a learned energy, put together to those in time."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        slope = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]
        q, p = slope.chunk(2, 1)
        return torch.cat([p, -q], 1)


class HeatEquation(nn.Module):
    """A solution of space and time, and how far it is from the equation: derivatives of derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 1))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, t = x.requires_grad_(), t.requires_grad_()
        u = self.net(torch.cat([x, t], 1))
        of = lambda y, z: torch.autograd.grad(y, z, torch.ones_like(y), create_graph=True)[0]  # noqa: E731
        return u, of(u, t) - of(of(u, x), x)


MODELS = {
    **{f"forces, {how}": (lambda how=how: (Energy(how), (torch.randn(5, 3),))) for how in
       ("grad", "enable_grad", "backward")},
    "Hamiltonian": lambda: (Hamiltonian(), (torch.randn(6, 4),)),
    "heat equation": lambda: (HeatEquation(), (torch.randn(6, 1), torch.randn(6, 1))),
}  # fmt: skip
GROUPS = {"forces": {12, 8, 10}, "Hamiltonian": {16}, "heat equation": {16, 12}}


@pytest.mark.parametrize("name", MODELS)
def test_forces_are_followed_and_exact(name):
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    before = Snapshot(model, inputs)
    gated = lumos.gate(model, inputs)
    before.assert_unchanged()
    assert set(hidden(gated.structure).values()) == GROUPS[name.partition(",")[0]]
    assert gated.structure.gradients
    assert_exact(gated, *inputs)


def test_what_is_differentiated_stays_with_a_reason():
    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = x.requires_grad_()
            h = self.a(x).tanh()
            return self.b(h) + torch.autograd.grad(h, x, torch.ones_like(h), create_graph=True)[0][:, :2]

    structure = trace_structure(Slope(), (torch.randn(6, 4),))
    assert "differentiated by grad in the model (Slope" in {f.name: f.reason for f in structure.fixed}["a"]


def test_costs_of_derivatives_are_counted():
    x = torch.randn(6, 4)
    structure = lumos.gate(Hamiltonian(), x).structure
    assert structure.dense_sizes[1] == 2 * 6 * (4 * 16 + 16)


def effective(gated, weights: dict[str, Tensor], gates: Tensor) -> dict[str, Tensor]:
    """Weights as the gates multiply them, written out."""
    found = dict(weights)
    for (name, dim), units in gated.structure.sites.items():
        shape = [-1 if d == dim else 1 for d in range(weights[name].ndim)]
        found[name] = found[name] * torch.cat([gates.new_ones(1), gates])[units].view(shape)
    return found


@pytest.mark.parametrize("name", ["forces, grad", "Hamiltonian", "heat equation"])
@pytest.mark.parametrize("rows", [5, 200])
def test_training_on_forces_has_the_gradients_of_the_gated_weights(name, rows):
    """Double backward: the loss is of forces, and the gates get their gradient through them."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model, inputs = model.double(), tuple(torch.randn(rows, x.shape[1], dtype=torch.float64) for x in inputs)
    gated = lumos.gate(model, inputs).train()
    gated.gates.log_alpha.data = torch.randn(gated.structure.units, dtype=torch.float64)
    out = gated(*inputs)
    loss = out.square().sum() if isinstance(out, Tensor) else sum(y.square().sum() for y in out)
    loss.backward()
    noise, settings = gated.gates.noise, gated.gates.settings
    log_alpha = gated.gates.log_alpha.detach().clone().requires_grad_()
    concrete = torch.sigmoid((torch.logit(noise) + log_alpha) / settings.tau)
    gates = (concrete * (settings.zeta - settings.gamma) + settings.gamma).clamp(0, 1)
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    want = torch.func.functional_call(model, effective(gated, weights, gates), inputs)
    (want.square().sum() if isinstance(want, Tensor) else sum(y.square().sum() for y in want)).backward()
    torch.testing.assert_close(gated.gates.log_alpha.grad, log_alpha.grad, rtol=1e-9, atol=1e-9)
    for name_of, p in gated.model.named_parameters():
        torch.testing.assert_close(p.grad, weights[name_of].grad, rtol=1e-9, atol=1e-9)


def test_a_potential_is_pruned_while_it_learns_forces():
    torch.manual_seed(0)
    model, pos = Energy(), torch.randn(5, 3)
    energy, forces = (y.detach() for y in Energy()(pos))
    gated = lumos.gate(model, (pos,))
    optimizer = torch.optim.Adam(gated.parameters(), lr=1e-2)
    pruner = lumos.Pruner(gated, optimizer, steps=24, target=lumos.Target(params=0.5))
    for _ in range(24):
        optimizer.zero_grad()
        e, f = gated(pos)
        ((e - energy).square().mean() + (f - forces).square().mean()).backward()
        optimizer.step()
    small = pruner.finish()
    count = [sum(p.numel() for p in m.parameters()) for m in (model, small.model)]
    assert count[1] < 0.7 * count[0]
    assert small(pos)[1].shape == forces.shape


class Transformed(nn.Module):
    """A network that ``torch.func`` maps over rows, or differentiates."""

    def __init__(self, transform):
        super().__init__()
        self.transform = transform
        self.net, self.head = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 1)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x) * self.transform(self.net, x).flatten(1).sum(1, keepdim=True)


TRANSFORMS = {
    "vmap": lambda net, x: torch.func.vmap(net)(x),
    "grad": lambda net, x: torch.func.grad(lambda x: net(x).sum())(x),
    "derivatives of rows": lambda net, x: torch.func.vmap(torch.func.jacrev(net))(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_transforms_of_torch_func_take_stays_and_the_network_in_them_is_cut(name):
    gated = lumos.gate(Transformed(TRANSFORMS[name]), torch.randn(6, 4))
    assert hidden(gated.structure)["net.0"] == 9
    (held,) = (f for f in gated.structure.fixed if f.name == "input")
    assert held.size == 4
    assert "a transform of torch.func takes it" in held.reason
    assert_exact(gated, torch.randn(7, 4))
